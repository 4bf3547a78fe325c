// The pages in the order in which they are read, grouped as the navigation shows them.

export interface Group {
  readonly title: string;
  /** From the root of the repository. */
  readonly files: readonly string[];
}

export const groups: readonly Group[] = [
  { title: 'Begin', files: ['README.md', 'docs/getting-started.md', 'docs/upgrade.md'] },
  {
    title: 'Configure',
    files: [
      'docs/routes.md',
      'docs/nginx.md',
      'docs/dns-providers.md',
      'docs/certificates.md',
      'docs/settings.md',
    ],
  },
  { title: 'Trust', files: ['docs/verification.md', 'SECURITY.md'] },
  {
    title: 'Operate',
    files: [
      'docs/operation.md',
      'docs/metrics.md',
      'docs/traces.md',
      'docs/logs.md',
      'docs/troubleshooting.md',
      'docs/fleet.md',
      'docs/performance.md',
      'docs/glossary.md',
    ],
  },
  {
    title: 'Contribute',
    files: ['docs/architecture.md', 'docs/dependencies.md', 'CONTRIBUTING.md', 'CHANGELOG.md'],
  },
];
