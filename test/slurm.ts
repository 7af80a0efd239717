import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from './orthanc.ts';

/** A cluster of one node, this machine, on loopback and in a folder of its own, with three GPUs that are none. */
export interface Slurm extends AsyncDisposable {
  /** With which Slurm’s commands find it. */
  readonly environment: NodeJS.ProcessEnv;
  readonly folder: string;
  /** Runs one of Slurm’s commands; its stdout. */
  ask(program: string, ...args: string[]): string;
}

/** Starts munge, the controller and the node, as root, and waits until the node takes jobs. */
export async function startSlurm(): Promise<Slurm> {
  const folder = mkdtempSync(join(tmpdir(), 'tomaat-slurm-'));
  // The controller runs jobs of others there, and munge wants its folders closed to writers.
  chmodSync(folder, 0o755);
  const at = (name: string) => join(folder, name);
  for (const name of ['state', 'spool']) mkdirSync(at(name));
  writeFileSync(at('munge.key'), crypto.getRandomValues(new Uint8Array(1024)), { mode: 0o600 });
  const gpus = [0, 1, 2].map((i) => at(`nvidia${i}`));
  for (const gpu of gpus) spawnSync('mknod', [gpu, 'c', '1', '3']);
  const name = hostname();
  writeFileSync(at('gres.conf'), gpus.map((file) => `NodeName=${name} Name=gpu File=${file}\n`).join(''));
  const [controllerPort, nodePort] = [await freePort(), await freePort()];
  const settings = {
    ClusterName: 'tomaat',
    SlurmctldHost: `${name}(127.0.0.1)`,
    SlurmUser: 'root',
    SlurmdUser: 'root',
    AuthType: 'auth/munge',
    AuthInfo: `socket=${at('munge.socket')}`,
    CredType: 'cred/munge',
    ProctrackType: 'proctrack/linuxproc',
    TaskPlugin: 'task/none',
    SelectType: 'select/cons_tres',
    SelectTypeParameters: 'CR_Core',
    SlurmdParameters: 'config_overrides',
    ReturnToService: 2,
    SlurmctldPort: controllerPort,
    SlurmdPort: nodePort,
    StateSaveLocation: at('state'),
    SlurmdSpoolDir: at('spool'),
    SlurmctldPidFile: at('controller.pid'),
    SlurmdPidFile: at('node.pid'),
    MpiDefault: 'none',
    KillWait: 30,
    GresTypes: 'gpu',
    AccountingStorageType: 'accounting_storage/none',
    JobCompType: 'jobcomp/none',
    NodeName: `${name} NodeAddr=127.0.0.1 CPUs=4 RealMemory=2000 Gres=gpu:3 State=UNKNOWN`,
    PartitionName: 'main Nodes=ALL Default=YES MaxTime=INFINITE State=UP',
  };
  const conf = at('slurm.conf');
  writeFileSync(
    conf,
    Object.entries(settings)
      .map((pair) => `${pair.join('=')}\n`)
      .join(''),
  );
  const environment = { ...process.env, SLURM_CONF: conf };
  const daemons: ChildProcess[] = [];
  const run = (program: string, ...args: string[]) => {
    const stdio = process.env.TEST_LOG ? 'inherit' : 'ignore';
    daemons.push(spawn(program, args, { env: environment, stdio }));
  };
  const ask = (program: string, ...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(program, args, { env: environment, encoding: 'utf8' });
    if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
    return stdout;
  };
  const files = ['pid', 'log', 'seed'].map((kind) => `--${kind}-file=${at(`munge.${kind}`)}`);
  const slurm: Slurm = {
    environment,
    folder,
    ask,
    async [Symbol.asyncDispose]() {
      spawnSync('scancel', ['--signal=KILL', '--full', '--user=root'], { env: environment });
      for (const daemon of daemons.reverse()) {
        if (daemon.exitCode !== null || daemon.signalCode !== null) continue;
        const exit = once(daemon, 'exit');
        daemon.kill('SIGKILL');
        await exit;
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
  try {
    run(
      'munged',
      '--foreground',
      '--force',
      `--socket=${at('munge.socket')}`,
      `--key-file=${at('munge.key')}`,
      ...files,
    );
    await until('munge', () => spawnSync('munge', ['-n', `--socket=${at('munge.socket')}`]).status === 0);
    run('slurmctld', '-D', '-f', conf);
    run('slurmd', '-D', '-f', conf, '-N', name);
    const state = () => spawnSync('sinfo', ['-h', '-o', '%t'], { env: environment, encoding: 'utf8' }).stdout;
    await until('the node', () => state().trim() === 'idle');
  } catch (error) {
    await slurm[Symbol.asyncDispose]();
    throw error;
  }
  return slurm;
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  const limitMs = performance.now() + 60_000;
  while (!isSo()) {
    if (performance.now() > limitMs)
      throw new Error(`${what} is not ready after 60 s (TEST_LOG=1 shows why)`);
    await delay(200);
  }
}
