// What the files that routes files in docs/ and examples/ name would hold.

import { weakCertificate } from './certificates.ts';

const { chain, key } = weakCertificate('ca.example.com');

/** By its name: a key, certificates, users with their hashes, another routes file, or words. */
export function documentedFile(path: string): string {
  if (path.endsWith('-key.pem')) return key;
  if (path.endsWith('.pem')) return chain;
  if (/\/(users|operators)$/.test(path))
    return 'ann:$2y$05$abcdefghijklmnopqrstuuO5Hc1Yw9J8l0A7bqJ9tq6s1nVZxG6Hy\n';
  if (path.endsWith('/more.yaml')) return 'routes: [{ host: more.example.com, upstream: web }]\n';
  return 'words';
}
