// A machine of its own for a program: its own loopback with every port free, and its own /etc, /run and /evidences.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Everything else is this machine's: the programs that are installed, the repository, /tmp. */
const ENTER = `
set -e
root="$1"; shift
mount --make-rprivate /
ip link set lo up
mount -t tmpfs tmpfs "$root"
for entry in /*; do
  case "$entry" in
    /etc) cp -a /etc "$root/etc" 2>/dev/null || true; rm -rf "$root/etc/letsencrypt" "$root/etc/nginx" ;;
    /run) mkdir "$root/run" ;;
    /evidences) ;;
    *)
      if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
      elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"
      fi ;;
  esac
done
mkdir "$root/evidences"
exec chroot "$root" "$@"
`;

/** Whether this system lets us make one: it takes namespaces, which some containers forbid. */
export function canHaveOwnMachine(): boolean {
  return spawnSync('unshare', [...namespaces(), 'ip', 'link', 'set', 'lo', 'up']).status === 0;
}

/** The program ends with it, and all that it has mounted goes. */
export function spawnOnOwnMachine(program: string, args: readonly string[]): ChildProcess {
  const root = mkdtempSync(join(tmpdir(), 'own-machine-'));
  const child = spawn(
    'unshare',
    [...namespaces(), '--kill-child', '--fork', 'sh', '-c', ENTER, 'sh', root, program, ...args],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  child.once('exit', () => spawnSync('rmdir', [root]));
  return child;
}

function namespaces(): string[] {
  return [...(process.getuid?.() === 0 ? [] : ['--map-root-user']), '--mount', '--net'];
}
