import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { orthancPlugin } from './programs.ts';

/** A PACS that runs: Orthanc with DICOMweb on loopback, empty, in a folder of its own that goes with it. */
export interface Orthanc extends AsyncDisposable {
  /** Root of its own API. */
  readonly url: string;
  /** Root of its DICOMweb service. */
  readonly dicomWeb: string;
  /** What it wrote to its log so far. */
  log(): string;
  /** Ends it at once, as a crash does; its folder stays. */
  kill(): Promise<void>;
  /** Starts it again on its folder and port, after `kill()`. */
  restart(): Promise<void>;
}

/**
 * Starts Orthanc, whose path `findOrthanc` gives, and waits until it answers. It cannot be asked for a free port, so one is found
 * first; if another program takes that in between, the next one is tried. It answers loopback alone, and has no DIMSE.
 * @param settings go over those here, such as `{ AuthenticationEnabled: true, RegisteredUsers: { a: 'b' } }`
 */
export async function startOrthanc(
  program: string,
  settings: Readonly<Record<string, unknown>> = {},
): Promise<Orthanc> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startAt(await freePort(), program, settings);
    } catch (error) {
      if (attempt === 3) throw error;
    }
  }
}

async function startAt(
  port: number,
  program: string,
  settings: Readonly<Record<string, unknown>>,
): Promise<Orthanc> {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-orthanc-'));
  const file = join(folder, 'orthanc.json');
  const data = join(folder, 'db');
  await writeFile(
    file,
    JSON.stringify({
      Name: 'TESTPACS',
      StorageDirectory: data,
      IndexDirectory: data,
      HttpPort: port,
      RemoteAccessAllowed: false,
      AuthenticationEnabled: false,
      DicomServerEnabled: false,
      Plugins: [orthancPlugin],
      DicomWeb: { Enable: true, Root: '/dicom-web/' },
      ...settings,
    }),
  );
  const url = `http://127.0.0.1:${port}`;
  let log = '';
  let stopProcess = async (_signal: NodeJS.Signals) => {};
  const start = async () => {
    const child = spawn(program, [file], { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        log += text;
      });
    const closed = once(child, 'close');
    stopProcess = async (signal) => {
      child.kill(signal);
      const grace = setTimeout(() => child.kill('SIGKILL'), 15_000);
      await closed;
      clearTimeout(grace);
    };
    const deadline = performance.now() + 60_000;
    // Any answer will do: with a login it is 401.
    while (!(await answers(`${url}/system`))) {
      if (child.exitCode !== null || performance.now() > deadline) {
        await stopProcess('SIGTERM');
        throw new Error(`Orthanc does not answer at ${url}:\n${log}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  const stop = async () => {
    await stopProcess('SIGTERM');
    await rm(folder, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url,
    dicomWeb: `${url}/dicom-web`,
    log: () => log,
    kill: () => stopProcess('SIGKILL'),
    restart: start,
    [Symbol.asyncDispose]: stop,
  };
}

async function answers(address: string): Promise<boolean> {
  try {
    await (await fetch(address)).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/** A port on loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}
