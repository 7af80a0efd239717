import { randomFillSync } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createClient, type FileSource } from '@tomaat/client';
import { callersFiles, type Finding, finding, openMortalServer, sha256, slowApp } from './harness.ts';

/**
 * A large upload over a line that breaks again and again, at random places: it ends with the bytes that were sent, and
 * hardly any of them went twice. In the middle of it the server itself is killed as well.
 */
export async function cutUpload(
  folder: string,
  { bytes, cuts, kills = 2 }: { bytes: number; cuts: number; kills?: number },
): Promise<Finding[]> {
  const server = await openMortalServer([await slowApp(folder, 'good', 1)], {
    dataFolder: join(folder, 'uploads-data'),
  });
  const offsets = (count: number) =>
    Array.from({ length: count }, () => Math.floor(Math.random() * bytes)).sort((a, b) => a - b);
  const line = await breakingLine(server.port, offsets(cuts));
  const data = randomFillSync(new Uint8Array(bytes));
  const file: FileSource = {
    name: 'large.nii',
    sizeBytes: bytes,
    stream: () => pieces(data, 0, bytes),
    slice: (start, end) => pieces(data, start, end),
  };
  const killAt = offsets(kills);
  let killing: Promise<void> | undefined;
  try {
    const start = performance.now();
    const client = createClient({ baseUrl: line.url });
    const ref = await client.upload(file, {
      onUpload({ sentBytes }) {
        if (killAt.length === 0 || sentBytes < killAt[0] || killing) return;
        killAt.shift();
        killing = server
          .kill()
          .then(() => server.start())
          .finally(() => {
            killing = undefined;
          });
      },
    });
    await killing;
    const seconds = (performance.now() - start) / 1000;
    const files = await callersFiles(server.dataFolder);
    const stored = files.map(({ name }) => name);
    const ratio = line.sentBytes() / bytes;
    return [
      finding(
        line.cuts() >= cuts && kills - killAt.length === kills,
        `${cuts} cuts and ${kills} kills of the server happened`,
        `${line.cuts()} and ${kills - killAt.length}`,
      ),
      finding(
        ref !== undefined && stored.includes(join('blobs', 'sha256', sha256(data))),
        'it ends with the same SHA-256',
        stored.join(', '),
      ),
      finding(
        ratio <= 1.05,
        'at most 1.05 times the bytes are sent',
        `${ratio.toFixed(4)} times ${(bytes / 1e6).toFixed(0)} MB in ${seconds.toFixed(1)} s`,
      ),
      finding(files.length === 1, 'no part is left', `${files.length} file(s)`),
    ];
  } finally {
    line.close();
    await killing;
    await server.close();
  }
}

async function* pieces(data: Uint8Array, start: number, end: number): AsyncGenerator<Uint8Array> {
  for (let at = start; at < end; at += 65_536) yield data.subarray(at, Math.min(end, at + 65_536));
}

/** A way to a port that counts what goes to the server, and breaks whenever that passes one of these offsets. */
async function breakingLine(port: number, offsets: readonly number[]) {
  const sockets = new Set<Socket>();
  let sentBytes = 0;
  let cuts = 0;
  const proxy = createServer((near) => {
    const far = connect(port, '127.0.0.1');
    const end = () => {
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', end);
      socket.on('close', () => {
        sockets.delete(socket);
        end();
      });
    }
    near.on('data', (chunk) => {
      sentBytes += chunk.length;
      if (cuts < offsets.length && sentBytes >= offsets[cuts]) {
        cuts++;
        end();
        return;
      }
      if (!far.write(chunk)) near.pause();
    });
    far.on('drain', () => near.resume());
    far.on('data', (chunk) => near.write(chunk));
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  return {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    sentBytes: () => sentBytes,
    cuts: () => cuts,
    close() {
      for (const socket of sockets) socket.destroy();
      proxy.close();
    },
  };
}
