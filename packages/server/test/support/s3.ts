import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { findRadosgw } from '../../../../test/programs.ts';

/** A real S3: radosgw over a Ceph cluster of one monitor and one store in memory. */
export interface TestS3 extends AsyncDisposable {
  readonly endpoint: string;
  readonly client: S3Client;
  /** The name of a new, empty bucket. */
  bucket(): Promise<string>;
  /** Kills the gateway, as a loss of power does; what it stored stays. */
  kill(): Promise<void>;
  start(): Promise<void>;
}

/** False where its programs are missing: then the tests that need them skip. */
export const hasS3 = findRadosgw() !== undefined;

const credentials = { accessKeyId: 'tomaat', secretAccessKey: 'tomaat-secret' };

/** Starts it on loopback, with the credentials in the AWS_* variables of this process. */
export async function startS3(): Promise<TestS3> {
  const folder = mkdtempSync(join(tmpdir(), 'tomaat-s3-'));
  const at = (name: string) => join(folder, name);
  for (const name of ['mon', 'osd', 'run']) mkdirSync(at(name));
  const [monitorPort, port] = [await freePort(), await freePort()];
  const monitor = `v1:127.0.0.1:${monitorPort}`;
  const cluster = randomUUID();
  const store = randomUUID();
  writeFileSync(
    at('ceph.conf'),
    `[global]
fsid = ${cluster}
mon host = ${monitor}
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
mon allow pool size one = true
mon max pg per osd = 1000
mon data = ${at('mon')}
osd data = ${at('osd')}
run dir = ${at('run')}
admin socket = ${at('run')}/$name.$pid.asok
log file = ${at('$name.log')}
public addr = 127.0.0.1
`,
  );
  const configured = ['-c', at('ceph.conf')];
  const run = (program: string, ...args: string[]) => {
    const done = spawnSync(program, [...configured, ...args], { encoding: 'utf8', timeout: 90_000 });
    if (done.status !== 0) throw new Error(`${program}: ${done.stderr}${done.stdout}`);
  };
  /** A monitor that is not ready yet may refuse a command: it is asked again. */
  const untilDone = (...command: [program: string, ...args: string[]]) => {
    const untilMs = Date.now() + 90_000;
    for (;;) {
      try {
        return run(...command);
      } catch (error) {
        if (Date.now() > untilMs) throw error;
      }
    }
  };
  const servers: ChildProcess[] = [];
  const launch = (program: string, ...args: string[]) => {
    const child = spawn(program, [...configured, '-f', ...args], { stdio: 'ignore' });
    servers.push(child);
    return child;
  };
  /** Now and then the monitor answers the first one that its fsid is wrong, and takes the next. */
  const launchStore = (): unknown =>
    launch('ceph-osd', '-i', '0').once('exit', (code) => code !== null && code !== 0 && launchStore());
  const launchGateway = () =>
    launch('radosgw', '-n', 'client.rgw', `--rgw-frontends=beast endpoint=127.0.0.1:${port}`);

  const endpoint = `http://127.0.0.1:${port}`;
  const answers = async () => {
    for (let left = 600; left > 0; left--) {
      if (
        await fetch(endpoint).then(
          ({ ok }) => ok,
          () => false,
        )
      )
        return;
      await delay(100);
    }
    throw new Error('radosgw did not start');
  };

  const stopAll = async () => {
    client.destroy();
    await Promise.all(servers.map(kill));
    rmSync(folder, { recursive: true, force: true });
  };
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
  });
  const client = new S3Client({ endpoint, forcePathStyle: true, region: 'us-east-1', credentials });
  let gateway: ChildProcess;
  try {
    run('monmaptool', '--create', '--addv', 'a', `[${monitor}]`, '--fsid', cluster, at('monmap'));
    run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', at('monmap'));
    launch('ceph-mon', '-i', 'a');
    untilDone('ceph', 'osd', 'new', store);
    run('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', store);
    launchStore();
    gateway = launchGateway();
    const { accessKeyId, secretAccessKey } = credentials;
    const keys = [`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`];
    // Not waited for by this thread, which starts the store again meanwhile.
    const user = [...configured, 'user', 'create', '--uid=test', '--display-name=test', ...keys];
    await promisify(execFile)('radosgw-admin', user, { timeout: 90_000 });
    await answers();
  } catch (error) {
    await stopAll();
    throw error;
  }
  return {
    endpoint,
    client,
    async bucket() {
      const name = `b-${randomUUID()}`;
      await client.send(new CreateBucketCommand({ Bucket: name }));
      return name;
    },
    kill: () => kill(gateway),
    async start() {
      gateway = launchGateway();
      await answers();
    },
    [Symbol.asyncDispose]: stopAll,
  };
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
