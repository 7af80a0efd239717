/**
 * What receiving an upload costs the server: counting, splitting at boundaries, base64 decoding, hashing, writing,
 * syncing. Each kind of upload is compared with a baseline that reads the same number of bytes from a bare socket,
 * then hashes, writes and syncs them. CPU is user + system time of the receiving process; fresh processes,
 * alternating order, medians.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { fastify } from 'fastify';
import { countBytes } from '../packages/server/src/intake/byte-counter.ts';
import { readMultipart } from '../packages/server/src/intake/multipart.ts';
import { receiveInput } from '../packages/server/src/intake/receive-input.ts';
import { openBlobs } from '../packages/server/src/store/blobs/blobs.ts';

const ways = ['octet-stream', 'multipart', 'base64'] as const;
type Way = (typeof ways)[number];

/** The most that each kind of upload may cost, as a multiple of the baseline's CPU per decoded byte. */
const maxRatio: Record<Way, number> = { 'octet-stream': 1.3, multipart: 1.6, base64: 2.2 };
const maxGrowthBytes = 32e6;

interface Report {
  cpuSeconds: number;
  peakGrowthBytes: number;
  digest: string;
}

export interface IntakeRow {
  way: Way | 'baseline';
  /** CPU seconds (user + system) per GB (1e9 bytes) of the file. */
  cpuSecondsPerGB: number;
  ratio?: number;
  maxRatio?: number;
  /** Growth of the process's resident memory on one large upload. */
  growthBytes?: number;
  maxGrowthBytes?: number;
  ok: boolean;
}

/** Sizes are rounded down to whole blocks of the generated file. */
export async function run(
  options: { rounds?: number; uploadBytes?: number; largeUploadBytes?: number } = {},
): Promise<{ name: 'intake'; rows: IntakeRow[]; ok: boolean }> {
  const { rounds = 5, uploadBytes = 200e6, largeUploadBytes = 500e6 } = options;
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-bench-'));
  try {
    const seconds = new Map<Way | 'baseline', number[]>();
    for (let round = 0; round < rounds; round++) {
      const order =
        round % 2 === 0 ? (['baseline', ...ways] as const) : [...ways].reverse().concat('baseline' as Way);
      for (const way of order) {
        const { cpuSeconds } = await measure(folder, way, uploadBytes);
        seconds.set(way, [
          ...(seconds.get(way) ?? []),
          cpuSeconds / (blocksIn(uploadBytes) * block.length * 1e-9),
        ]);
      }
    }
    const baseline = median(seconds.get('baseline') as number[]);
    const rows: IntakeRow[] = [{ way: 'baseline', cpuSecondsPerGB: baseline, ok: true }];
    for (const way of ways) {
      const cpuSecondsPerGB = median(seconds.get(way) as number[]);
      const ratio = cpuSecondsPerGB / baseline;
      const growthBytes = (await measure(folder, way, largeUploadBytes)).peakGrowthBytes;
      const ok = ratio <= maxRatio[way] && growthBytes <= maxGrowthBytes;
      rows.push({ way, cpuSecondsPerGB, ratio, maxRatio: maxRatio[way], growthBytes, maxGrowthBytes, ok });
    }
    print(rows);
    return { name: 'intake', rows, ok: rows.every((row) => row.ok) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function print(rows: readonly IntakeRow[]): void {
  console.log('intake          CPU s/GB   of baseline (at most)   growth of memory (at most)');
  for (const { way, cpuSecondsPerGB, ratio, maxRatio, growthBytes, ok } of rows) {
    const cost = `${way.padEnd(15)} ${cpuSecondsPerGB.toFixed(2).padStart(8)}`;
    if (ratio === undefined || growthBytes === undefined) console.log(cost);
    else {
      const growth = `${(growthBytes / 1e6).toFixed(1).padStart(8)} MB (${maxGrowthBytes / 1e6})`;
      console.log(`${cost} ${ratio.toFixed(2).padStart(11)} (${maxRatio}) ${growth}${ok ? '' : '   MISSED'}`);
    }
  }
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

// ── The sender ───────────────────────────────────────────────────────────────────────────────────────────────

/** The uploaded file is this block repeated: whole base64 lines of 57 bytes. */
const block = randomBytes(57 * 4096);
const blockBase64 = Buffer.from(block.toString('base64').replace(/.{76}/g, '$&\n'));
const blocksIn = (bytes: number) => Math.floor(bytes / block.length);

async function measure(folder: string, way: Way | 'baseline', bytes: number): Promise<Report> {
  const child = spawn(
    process.execPath,
    [
      '--conditions=tomaat-source',
      fileURLToPath(import.meta.url),
      way === 'baseline' ? 'baseline' : 'server',
      folder,
    ],
    { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
  );
  try {
    const [{ port }] = (await once(child, 'message')) as [{ port: number }];
    // The first uploads warm up the compiler and fill the pools.
    for (let warmup = 0; warmup < 2; warmup++) await send(child, way, port, 20e6);
    const report = await send(child, way, port, bytes);
    const hash = createHash('sha256');
    for (let sent = 0; sent < blocksIn(bytes); sent++) hash.update(block);
    if (report.digest !== `sha256:${hash.digest('hex')}`)
      throw new Error(`${way}: what arrived is not what was sent`);
    return report;
  } finally {
    child.kill();
    await once(child, 'exit');
  }
}

async function send(
  child: ChildProcess,
  way: Way | 'baseline',
  port: number,
  bytes: number,
): Promise<Report> {
  const ready = once(child, 'message');
  child.send('begin');
  await ready;
  const report = once(child, 'message') as Promise<[Report]>;
  if (way === 'baseline') {
    const socket = connect(port, '127.0.0.1');
    await pour(socket, block, blocksIn(bytes));
    socket.end();
    await once(socket.resume(), 'close');
  } else {
    const isForm = way !== 'octet-stream';
    const type = isForm
      ? 'multipart/form-data; boundary=----form7MA4YWxkTrZu0gW'
      : 'application/octet-stream';
    const file = way === 'base64' ? blockBase64 : block;
    const name = way === 'base64' ? 'name="volume"' : 'name="volume"; filename="x.nii"';
    const head = isForm ? `------form7MA4YWxkTrZu0gW\r\nContent-Disposition: form-data; ${name}\r\n\r\n` : '';
    const tail = isForm ? '\r\n------form7MA4YWxkTrZu0gW--\r\n' : '';
    const post = request({
      port,
      host: '127.0.0.1',
      method: 'POST',
      path: way === 'base64' ? '/v1' : '/',
      headers: {
        'content-type': type,
        'content-length': head.length + tail.length + file.length * blocksIn(bytes),
      },
    });
    const answered = once(post, 'response');
    if (head) post.write(head);
    await pour(post, file, blocksIn(bytes));
    post.end(tail);
    const [response] = await answered;
    response.resume();
    if (response.statusCode !== 200) throw new Error(`${way}: answered ${response.statusCode}`);
  }
  return (await report)[0];
}

async function pour(target: Writable, chunk: Buffer, times: number): Promise<void> {
  for (let sent = 0; sent < times; sent++) if (!target.write(chunk)) await once(target, 'drain');
}

// ── The receivers ────────────────────────────────────────────────────────────────────────────────────────────

/** Measures this process from 'begin' until one upload is complete. */
function createMeter(): { end(digest: string): void } {
  let cpu = process.cpuUsage();
  let rss = 0;
  let peak = 0;
  const sample = () => {
    peak = Math.max(peak, process.memoryUsage.rss());
  };
  process.on('message', () => {
    peak = rss = process.memoryUsage.rss();
    cpu = process.cpuUsage();
    process.send?.('ready');
  });
  setInterval(sample, 20);
  return {
    end(digest) {
      const { user, system } = process.cpuUsage(cpu);
      sample();
      process.send?.({
        cpuSeconds: (user + system) / 1e6,
        peakGrowthBytes: peak - rss,
        digest,
      } satisfies Report);
    },
  };
}

async function serve(folder: string): Promise<void> {
  const meter = createMeter();
  const blobs = await openBlobs(join(folder, 'blobs'));
  const app = fastify();
  app.addContentTypeParser(['application/octet-stream', 'multipart/form-data'], (_request, payload, done) =>
    done(null, payload),
  );
  const limits = { maxUploadBytes: 2 ** 31 };
  for (const [url, encoding] of [
    ['/', 'raw'],
    ['/v1', 'base64'],
  ] as const) {
    app.post(url, async (incoming) => {
      const body = countBytes(incoming.raw, limits, incoming.headers['content-length']);
      const type = incoming.headers['content-type'] ?? '';
      const parts = type.startsWith('multipart/') ? readMultipart(body, type) : [{ name: 'volume', body }];
      for await (const part of parts) {
        const written = await receiveInput(part, blobs, { encoding, maxBytes: limits.maxUploadBytes });
        const { digest } = await written.commit();
        meter.end(digest);
        await blobs.delete(digest);
      }
      return {};
    });
  }
  await app.listen({ port: 0, host: '127.0.0.1' });
  process.send?.({ port: (app.server.address() as AddressInfo).port });
}

async function serveBaseline(folder: string): Promise<void> {
  const meter = createMeter();
  const server = createServer({ allowHalfOpen: true }, async (socket: Socket) => {
    const path = join(folder, 'baseline');
    const file = await open(path, 'w');
    const hash = createHash('sha256');
    // Chunks of 1 MiB, each written while the next one is read.
    let pieces: Buffer[] = [];
    let bytes = 0;
    let writing: Promise<unknown> = Promise.resolve();
    for await (const chunk of socket as AsyncIterable<Buffer>) {
      hash.update(chunk);
      pieces.push(chunk);
      bytes += chunk.length;
      if (bytes < 1024 * 1024) continue;
      await writing;
      writing = file.writev(pieces);
      pieces = [];
      bytes = 0;
    }
    await writing;
    if (pieces.length > 0) await file.writev(pieces);
    await file.datasync();
    await file.close();
    meter.end(`sha256:${hash.digest('hex')}`);
    await rm(path);
    socket.end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  process.send?.({ port: (server.address() as AddressInfo).port });
}

if (import.meta.main) {
  const [role, folder] = process.argv.slice(2);
  if (role === 'server') await serve(folder);
  else if (role === 'baseline') await serveBaseline(folder);
  else if (!(await run()).ok) process.exitCode = 1;
}
