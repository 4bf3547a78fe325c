// What the doctor finds of the guest agent: whether it answers, who it says we are, and whose keys it hands out.

import { AgentError, type AgentInfo } from '../../evidence/agent.ts';
import type { Config } from '../config/config.ts';
import { connectsToUs } from '../records/records.ts';
import { type Finding, findingsOf, told } from './doctor-report.ts';

const { ok, warn, fail } = findingsOf('agent');

export async function agentFindings(config: Config, info: () => Promise<AgentInfo>): Promise<Finding[]> {
  try {
    return judge(config, await info());
  } catch (error) {
    return [unanswered(error)];
  }
}

function unanswered(error: unknown): Finding {
  const why = 'without the agent there is no quote, so no evidence, and the app id is not known';
  const code = error instanceof AgentError ? error.code : undefined;
  switch (code) {
    case 'unreachable':
      return fail('guest agent', told(error), why, 'mount /var/run/dstack.sock into the container');
    case 'timeout':
      return fail(
        'guest agent',
        told(error),
        why,
        'see whether the guest agent of the machine hangs, and restart it',
      );
    default:
      return fail(
        'guest agent',
        told(error),
        why,
        'see the log of the guest agent; is DSTACK_SIMULATOR_ENDPOINT the agent?',
      );
  }
}

function judge({ acme, dns }: Config, { appId, instanceId, keyProvider }: AgentInfo): Finding[] {
  const provider = keyProvider?.name ?? 'unknown';
  const findings: Finding[] = [];
  if (acme.accountKey === 'kms' && provider !== 'kms') {
    findings.push(
      fail(
        'ACME_ACCOUNT_KEY=kms',
        `the key provider of this app is ${JSON.stringify(provider)}`,
        'its keys do not outlive the machine, and a new start would have another account',
        'deploy with the KMS, or set ACME_ACCOUNT_KEY=file',
      ),
    );
  } else if (provider === 'none') {
    findings.push(
      warn(
        'key provider',
        'there is none',
        'the disk is encrypted with a key that the next boot does not have: all certificates are ordered anew then',
        'deploy with a key provider: the KMS',
      ),
    );
  }
  if (connectsToUs(acme.challenge) && instanceId === '' && dns.appId === undefined) {
    findings.push(
      warn(
        `CHALLENGE_TYPE=${acme.challenge}`,
        'the machine has no instance id',
        'the gateway may lead the CA to another instance of the app, which does not know the challenge',
        'deploy without no_instance_id, or use dns-01',
      ),
    );
  }
  if (dns.appId !== undefined && dns.appId !== appId) {
    findings.push(
      warn(
        `APP_ID=${dns.appId}`,
        `the agent says that this app is ${appId}`,
        "the gateway leads the domains' visitors to the other app",
        'take APP_ID away, unless several apps share these domains on purpose',
      ),
    );
  }
  return findings.length > 0 ? findings : [ok('guest agent', `app ${appId}, key provider ${provider}`)];
}
