import { fork } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { fileURLToPath } from 'node:url';
import { status } from '@grpc/grpc-js';
import {
  type InferResult,
  infer,
  parseModelServer,
  type ServedSpec,
  type TomaatError,
  type Volume,
} from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openServedNetwork } from '../src/runtimes/oip.ts';
import { ownNodeOptions } from '../src/source.ts';
import { makeCertificate, type OwnCertificate } from './certificate-fixture.ts';
import { labelsOf, writeFileApp, writeServedApp } from './oip-fixture.ts';
import {
  bytesOf,
  identity,
  onnxModel,
  type PeerAnswer,
  type PeerModel,
  PeerRefusal,
  startGrpcPeer,
  startHttpPeer,
} from './oip-peer.ts';
import { encodeModel, labelNetwork, unetNetwork } from './onnx-fixture.ts';
import { phantom } from './phantom.ts';
import { temporaryFolder } from './test-server.ts';

/* Networks on model servers: the same labels as in a file, and what happens when a server fails. */

let folder: string;
let certificate: OwnCertificate;
beforeAll(async () => {
  folder = await temporaryFolder();
  certificate = await makeCertificate(folder, { names: ['localhost', '127.0.0.1'] });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const unet = unetNetwork({ classes: 4, seed: 5 });
/** A 2-D convolution with other weights for rows and columns: an axis swap shows. */
const flat = encodeModel({
  nodes: [
    {
      op: 'Conv',
      inputs: ['image', 'w', 'b'],
      outputs: ['scores'],
      attributes: { kernel_shape: [3, 3], pads: [1, 1, 1, 1] },
    },
  ],
  initializers: [
    {
      name: 'w',
      dims: [2, 1, 3, 3],
      data: Float32Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 1, -2, 3, 0, 1, 4, -2, 0, 1]),
    },
    { name: 'b', dims: [2], data: Float32Array.from([0.7, 0]) },
  ],
  inputs: [{ name: 'image', dims: [1, 1, 'y', 'x'] }],
  outputs: [{ name: 'scores', dims: [1, 2, 'y', 'x'] }],
});

const start = { 'grpc:': startGrpcPeer, 'http:': startHttpPeer } as const;
type Protocol = keyof typeof start;
const protocols = Object.keys(start) as Protocol[];

/** The error of a run. */
const failure = (run: Promise<unknown>): Promise<TomaatError> =>
  run.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: TomaatError) => error,
  );

/** The scores or labels that a model, by gRPC, gives for a volume; in this process. */
async function inferWith(
  model: PeerModel,
  keys: Record<string, unknown> = {},
  volume: Volume = bright,
): Promise<InferResult> {
  await using peer = await startGrpcPeer({ net: model });
  const url = `grpc://127.0.0.1:${peer.port}`;
  const spec = { runtime: 'oip', url, model: 'net', inferer: { type: 'simple' }, ...keys } as ServedSpec;
  const permitted = { allowNet: [], keys: {} };
  const session = await openServedNetwork({ spec, address: parseModelServer(url)!, permitted }, 60_000);
  try {
    return await infer(volume, session, spec.inferer, { type: 'none' });
  } finally {
    session.close();
  }
}
const failureWith = (...[model, keys]: Parameters<typeof inferWith>) => failure(inferWith(model, keys));

/** The phantom as float32, its brightest voxels 0.9. */
const bright: Volume = {
  ...phantom(),
  voxels: Float32Array.from(phantom().voxels as Int16Array, (v) => v / 1000),
};

const answering = (answer: (shape: readonly number[]) => PeerAnswer | PeerAnswer[]): PeerModel => ({
  infer: ({ shape }) => answer(shape),
});
const countOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

describe.each(protocols)('a network behind %s//', { timeout: 120_000 }, (protocol) => {
  it.each([
    ['the whole volume', unet, { inferer: { type: 'simple' } }, { k: 8 }],
    ['windows', unet, { inferer: { type: 'slidingWindow', roiSize: [24, 16, 8], mode: 'gaussian' } }],
    [
      'mirrored windows',
      unet,
      { inferer: { type: 'slidingWindow', roiSize: [16, 16, 16], mirrorAxes: ['x', 'z'] } },
    ],
    ['slices across y', flat, { inferer: { type: 'slice', axis: 'y' } }],
  ] as const)(
    'gives the labels of the same network in a file: %s',
    async (_, bytes, model, pad?: { k: number }) => {
      const more = pad && {
        preprocess: [
          { orientation: { axcodes: 'RAS' } },
          { scaleIntensityRange: { aMin: 0, aMax: 1000, bMin: 0, bMax: 1 } },
          { divisiblePad: pad },
        ],
      };
      await using peer = await start[protocol]({ net: await onnxModel(bytes, bytes === flat ? 4 : 5) });
      const url = `${protocol}//127.0.0.1:${peer.port}`;
      const served = await labelsOf(
        await writeServedApp(folder, 'served', { url, model: 'net', ...model }, more),
      );
      const own = await labelsOf(await writeFileApp(folder, 'own', bytes, model, more));
      expect(new Set<unknown>(own.voxels as Uint8Array).size).toBeGreaterThan(1);
      expect(served.size).toEqual(own.size);
      expect(served.affine).toEqual(own.affine);
      expect(Buffer.compare(bytesOf(served.voxels as Uint8Array), bytesOf(own.voxels as Uint8Array))).toBe(0);
      expect(peer.calls.filter(({ method }) => /infer/i.test(method)).length).toBeGreaterThan(0);
    },
  );

  it('takes labels from a network that decides by itself', async () => {
    await using peer = await start[protocol]({ net: await onnxModel(labelNetwork(0.2)) });
    const url = `${protocol}//127.0.0.1:${peer.port}`;
    const more = {
      postprocess: ['restore'],
      preprocess: [{ scaleIntensityRange: { aMin: 0, aMax: 1000, bMin: 0, bMax: 1 } }],
    };
    const { voxels } = await labelsOf(await writeServedApp(folder, 'labels', { url, model: 'net' }, more));
    const expected = Array.from(phantom().voxels as Int16Array, (v) => (v > 200 ? 1 : 0));
    expect([...(voxels as Uint8Array)].map(Number)).toEqual(expected);
  });

  it('sends the version and the key of the server, over TLS', async () => {
    await using peer = await start[protocol](
      { net: identity },
      { tls: certificate, authorization: 'Bearer s3cret' },
    );
    const name = `localhost:${peer.port}`;
    const url = `${protocol.replace(':', 's:')}//${name}`;
    const app = await writeServedApp(folder, 'secure', { url, model: 'net', version: '3' }, threshold);
    const untrusted = await failure(labelsOf(app));
    expect(untrusted.code).toBe('UPSTREAM');
    expect(untrusted.message).toMatch(/certificate .* is not trusted here .*--ca FILE/);
    expect(peer.calls).toEqual([]);
    const permitted = { allowNet: [], ca: certificate.pem, keys: {} };
    const refused = await failure(labelsOf(app, phantom(), { modelServers: permitted }));
    expect(refused.code).toBe('UPSTREAM');
    expect(refused.message).toContain(`Add a line ${name}=KEY to the setting modelServerKeys`);
    const wrong = await failure(
      labelsOf(app, phantom(), { modelServers: { ...permitted, keys: { [name]: 'wr0ng' } } }),
    );
    expect(wrong.message).toContain(`Correct the line ${name}=KEY`);
    expect(wrong.message).not.toContain('wr0ng');
    const { voxels } = await labelsOf(app, phantom(), {
      modelServers: { ...permitted, keys: { [name]: 's3cret', 'other:1': 'x' } },
    });
    expect(new Set(voxels as Uint8Array)).toEqual(new Set([0, 1]));
    expect(peer.calls.at(-1)).toMatchObject({ version: '3', authorization: 'Bearer s3cret' });
  });

  it('says what is not there', async () => {
    await using peer = await start[protocol]({ net: identity });
    const url = `${protocol}//127.0.0.1:${peer.port}`;
    const unknown = await failure(labelsOf(await writeServedApp(folder, 'unknown', { url, model: 'nett' })));
    expect(unknown.code).toBe('BAD_MANIFEST');
    expect(unknown.message).toContain(`The model nett at ${url} does not exist`);
    expect(unknown.message).not.toContain('\u0007');
    const input = await failure(
      labelsOf(await writeServedApp(folder, 'input', { url, model: 'net', input: 'scan' })),
    );
    expect(input.code).toBe('BAD_MANIFEST');
    expect(input.message).toMatch(/has no input scan; it has image\. Correct `model\.input`/);
    await peer.kill();
    const startedMs = performance.now();
    const away = await failure(labelsOf(await writeServedApp(folder, 'away', { url, model: 'net' })));
    expect(away.code).toBe('UNREACHABLE');
    expect(away.message).toMatch(
      /The model net at .* cannot be reached .*ECONNREFUSED.* Start the model server/,
    );
    expect(performance.now() - startedMs).toBeLessThan(30_000);
  });

  it('ends a call that takes too long', async () => {
    await using peer = await start[protocol]({ net: { infer: () => new Promise(() => {}) } });
    const url = `${protocol}//127.0.0.1:${peer.port}`;
    const late = await failure(
      labelsOf(await writeServedApp(folder, 'late', { url, model: 'net', timeoutSeconds: 0.5 })),
    );
    expect(late.code).toBe('TIMEOUT');
    expect(late.message).toMatch(/did not answer in time .* raise timeoutSeconds/);
  });

  it('cancels the call of a prediction that is cancelled', async () => {
    const cancel = new AbortController();
    const { promise: canceled, resolve } = Promise.withResolvers<void>();
    const hang: PeerModel = {
      infer(_, signal) {
        signal.addEventListener('abort', () => resolve());
        cancel.abort(new Error('enough'));
        return new Promise(() => {});
      },
    };
    await using peer = await start[protocol]({ net: hang });
    const url = `${protocol}//127.0.0.1:${peer.port}`;
    const app = await writeServedApp(folder, 'canceled', { url, model: 'net' });
    await expect(labelsOf(app, phantom(), { signal: cancel.signal })).rejects.toThrow('enough');
    await canceled;
  });

  it('fails in seconds when the connection breaks in the middle of a call', async () => {
    let breakIt = () => {};
    const net: PeerModel = {
      infer() {
        breakIt();
        return new Promise(() => {});
      },
    };
    await using peer = await start[protocol]({ net });
    breakIt = () => void peer.kill();
    const url = `${protocol}//127.0.0.1:${peer.port}`;
    const startedMs = performance.now();
    const broken = await failure(labelsOf(await writeServedApp(folder, 'broken', { url, model: 'net' })));
    expect(broken.code).toBe('UNREACHABLE');
    expect(performance.now() - startedMs).toBeLessThan(30_000);
  });

  it('refuses a machine that the operator did not permit, and uses one that he did', async () => {
    const own = Object.values(networkInterfaces())
      .flatMap((found) => found ?? [])
      .find(({ internal, family }) => !internal && family === 'IPv4')?.address;
    // A machine without a network has nothing but loopback.
    if (own === undefined) return;
    await using peer = await start[protocol]({ net: identity }, { host: '0.0.0.0' });
    const url = `${protocol}//${own}:${peer.port}`;
    const app = await writeServedApp(folder, 'elsewhere', { url, model: 'net' }, threshold);
    const refused = await failure(labelsOf(app));
    expect(refused.code).toBe('BAD_MANIFEST');
    expect(refused.message).toContain(`--allow-net ${own}/32`);
    expect(peer.calls).toEqual([]);
    const permitted = { allowNet: [`${own}/32`], keys: {} };
    expect(
      new Set((await labelsOf(app, phantom(), { modelServers: permitted })).voxels as Uint8Array),
    ).toEqual(new Set([0, 1]));
    const keyed = { ...permitted, keys: { [`${own}:${peer.port}`]: 's3cret' } };
    const plain = await failure(labelsOf(app, phantom(), { modelServers: keyed }));
    expect(plain.message).toMatch(/over TLS or to this machine only/);
  });
});

/** What is bright in the unchanged voxels, from one score. */
const threshold = {
  preprocess: [{ scaleIntensityRange: { aMin: 0, aMax: 1000, bMin: 0, bMax: 1 } }],
  postprocess: [{ threshold: { above: 0.2 } }, 'restore'],
};

describe('numbers of other types', { timeout: 60_000 }, () => {
  const values = bright.voxels as Float32Array;
  const marked = Uint8Array.from(values, (v) => (v > 0.2 ? 1 : 0));
  /** The two upper bytes of float32. */
  const brain = Uint16Array.from(new Uint32Array(values.slice().buffer), (word) => word >>> 16);
  const brainValues = Float32Array.from(
    brain,
    (half) => new Float32Array(Uint32Array.of(half << 16).buffer)[0],
  );

  it.each<
    [
      datatype: string,
      sent: Omit<PeerAnswer, 'name' | 'datatype' | 'shape'>,
      expected: Float32Array | Uint8Array,
    ]
  >([
    ['FP64', { bytes: bytesOf(Float64Array.from(values)) }, values],
    ['BF16', { bytes: bytesOf(brain) }, brainValues],
    ['FP32', { contents: { fp32_contents: [...values] } }, values],
    ['INT64', { bytes: bytesOf(BigInt64Array.from(marked, BigInt)) }, marked],
    ['INT32', { bytes: bytesOf(Int32Array.from(marked)) }, marked],
    ['UINT8', { bytes: marked }, marked],
    ['BOOL', { bytes: marked }, marked],
  ])('%s', async (datatype, sent, expected) => {
    const net = answering((shape) => ({ name: 'scores', datatype, shape, ...sent }));
    const { scores, labels } = (await inferWith(net)) as { scores?: Volume; labels?: Volume };
    expect((scores ?? labels)?.voxels).toEqual(expected);
  });

  it('FP16 in and out', async () => {
    if (!('Float16Array' in globalThis)) return;
    const half = { name: 'image', datatype: 'FP16', shape: [-1, -1, -1, -1, -1] };
    let taken = '';
    const { scores } = (await inferWith({
      inputs: [half],
      outputs: [{ ...half, name: 'scores' }],
      infer(input) {
        taken = input.datatype;
        return { ...input, name: 'scores' };
      },
    })) as { scores: Volume };
    expect(taken).toBe('FP16');
    const voxels = scores.voxels as Float32Array;
    expect(Math.max(...voxels.map((v, i) => Math.abs(v - values[i])))).toBeLessThan(1e-3);
    expect(new Set(voxels).size).toBe(3);
  });
});

describe('answers that cannot be right', { timeout: 120_000 }, () => {
  it.each<[string, PeerModel, RegExp]>([
    [
      'fewer bytes than the shape says',
      answering((shape) => ({ name: 's', datatype: 'FP32', shape, bytes: new Uint8Array(12) })),
      /gave 12 bytes for a tensor of 1 × 1/,
    ],
    [
      'a negative shape',
      answering((shape) => ({
        name: 's',
        datatype: 'FP32',
        shape: shape.map((n) => -n),
        bytes: new Uint8Array(4),
      })),
      /gave 4 bytes for a tensor of -1/,
    ],
    [
      'a batch of two',
      answering((shape) => ({
        name: 's',
        datatype: 'FP32',
        shape: [2, ...shape.slice(1)],
        bytes: new Uint8Array(countOf(shape) * 8),
      })),
      /The first dimension is the batch/,
    ],
    [
      'another grid',
      answering(([, c, z, y, x]) => ({
        name: 's',
        datatype: 'FP32',
        shape: [1, c, x, y, z + 1],
        bytes: new Uint8Array(c * x * y * (z + 1) * 4),
      })),
      /gave .* for /,
    ],
    [
      'text',
      answering(() => ({ name: 's', datatype: 'BYTES', shape: [1], bytes: Buffer.from('cat') })),
      /numbers of the type BYTES.*FP32, FP16/,
    ],
    ['nothing', answering(() => []), /no output/],
    [
      'numbers that are not finite',
      answering((shape) => ({
        name: 's',
        datatype: 'FP32',
        shape: [1, 2, ...shape.slice(2)],
        bytes: bytesOf(new Float32Array(countOf(shape) * 2).fill(Number.NaN)),
      })),
      /NaN|finite|not a number/i,
    ],
  ])('%s', async (_, model, message) => {
    const error = await failureWith({ ...model, outputs: [] });
    expect(['APP_OUTPUT', 'APP_FAILED']).toContain(error.code);
    expect(error.message).toMatch(message);
  });

  it('one larger than any network gives is refused before it is read', async () => {
    const error = await failureWith({
      outputs: [{ name: 's', datatype: 'FP32', shape: [1, 2, -1, -1, -1] }],
      ...answering(() => ({ name: 's', datatype: 'FP32', shape: [1], bytes: new Uint8Array(40e6) })),
    });
    expect(error.code).toBe('APP_OUTPUT');
    expect(error.message).toMatch(/larger answer than a network can give on a tensor of 1 × 1 × .* vs /);
  });

  it('scores of all classes of a slice are not too large, whatever the batch is', async () => {
    const size = [700, 700, 1] as const;
    const slice = { ...bright, size, voxels: new Float32Array(700 * 700).fill(0.5) };
    const model: PeerModel = {
      inputs: [{ name: 'i', datatype: 'FP32', shape: [1, 1, -1, -1] }],
      outputs: [{ name: 's', datatype: 'FP32', shape: [1, 4, -1, -1] }],
      ...answering(([batch, , y, x]) => ({
        name: 's',
        datatype: 'FP32',
        shape: [batch, 4, y, x],
        bytes: bytesOf(new Float32Array(4 * y * x)),
      })),
    };
    const result = await inferWith(model, { inferer: { type: 'slice', axis: 'z' } }, slice);
    expect('scores' in result && result.scores).toMatchObject({ size, components: 4 });
  });

  it('failures of the model are told with its words, on one line', async () => {
    const error = await failureWith({
      infer: () => {
        throw new PeerRefusal(status.INVALID_ARGUMENT, `sizes\nmust be multiples of 32 ${'x'.repeat(5000)}`);
      },
    });
    expect(error.code).toBe('APP_FAILED');
    expect(error.message).toMatch(
      /failed on a tensor of 1 × 1 × \d+ × \d+ × \d+ \(sizes must be multiples of 32 x+/,
    );
    expect(error.message.length).toBeLessThan(1000);
  });
});

describe('what a server states of a model', { timeout: 120_000 }, () => {
  it.each<[string, PeerModel, Record<string, unknown>, RegExp]>([
    ['no inputs', { ...identity, inputs: [] }, {}, /does not list the inputs .* model\.input/],
    [
      'two inputs',
      { ...identity, inputs: [0, 1].map((i) => ({ name: `i${i}`, datatype: 'FP32', shape: [-1] })) },
      {},
      /has 2 inputs \(i0, i1\)/,
    ],
    [
      'whole numbers as input',
      { ...identity, inputs: [{ name: 'i', datatype: 'INT64', shape: [-1, -1, -1, -1, -1] }] },
      {},
      /is int64; it must be float32 or float16/,
    ],
    [
      'a batch of four',
      { ...identity, inputs: [{ name: 'i', datatype: 'FP32', shape: [4, 1, -1, -1, -1] }] },
      {},
      /is 4 × 1 .*; expected: 1 × components/,
    ],
    [
      'text as output',
      { ...identity, outputs: [{ name: 't', datatype: 'BYTES', shape: [1] }] },
      {},
      /The output t .* is BYTES, not a tensor of numbers/,
    ],
    ['another output', identity, { output: 'mask' }, /has no output mask; it has scores/],
    [
      'another output than hundreds with names without end',
      {
        ...identity,
        outputs: Array.from({ length: 300 }, () => ({
          name: `\u001b[2J${'x'.repeat(5000)}`,
          datatype: 'FP32',
          shape: [1],
        })),
      },
      { output: 'mask' },
      /^\P{Cc}{1,2500}has no output mask\P{Cc}{1,2500}, …\. Correct/u,
    ],
  ])('%s is refused, with the remedy', async (_, model, spec, message) => {
    const error = await failureWith(model, spec);
    expect(error.code).toBe('BAD_MANIFEST');
    expect(error.message).toMatch(message);
  });

  it('nothing: the names of the manifest are used', async () => {
    let asked = '';
    const net: PeerModel = {
      inputs: [],
      outputs: [],
      infer(input) {
        asked = input.name;
        return [
          { ...input, name: 'other', bytes: new Uint8Array(4) },
          { ...input, name: 'scores' },
        ];
      },
    };
    await using peer = await startGrpcPeer({ net });
    const url = `grpc://127.0.0.1:${peer.port}`;
    const model = { url, model: 'net', input: 'scan', output: 'scores' };
    const { voxels } = await labelsOf(await writeServedApp(folder, 'named', model, threshold));
    expect(asked).toBe('scan');
    expect(new Set(voxels as Uint8Array)).toEqual(new Set([0, 1]));
  });

  it('that it is not ready yet: waits for a moment', async () => {
    let asked = 0;
    await using peer = await startGrpcPeer({ net: { ...identity, isReady: () => ++asked > 2 } });
    const url = `grpc://127.0.0.1:${peer.port}`;
    await labelsOf(await writeServedApp(folder, 'soon', { url, model: 'net' }, threshold));
    const error = await failureWith({ ...identity, isReady: () => false });
    expect(error.code).toBe('UNREACHABLE');
    expect(error.message).toMatch(/has not loaded it yet/);
  });
});

describe('an HTTP server without binary tensors', () => {
  it('is refused rather than asked in text', { timeout: 120_000 }, async () => {
    await using peer = await startHttpPeer({ net: identity }, { extensions: ['classification'] });
    const url = `http://127.0.0.1:${peer.port}`;
    const error = await failure(labelsOf(await writeServedApp(folder, 'text', { url, model: 'net' })));
    expect(error.code).toBe('BAD_MANIFEST');
    expect(error.message).toMatch(/does not list the extension binary_tensor_data.*grpc:\/\/HOST:PORT/);
  });
});

it('a model server that is killed in the middle of a call: the job fails within seconds', {
  timeout: 120_000,
}, async () => {
  const file = fileURLToPath(new URL('./oip-peer-process.ts', import.meta.url));
  const peer = fork(file, { execArgv: [...ownNodeOptions] });
  try {
    const [{ port }] = (await once(peer, 'message')) as [{ port: number }];
    const app = await writeServedApp(folder, 'killed', { url: `grpc://127.0.0.1:${port}`, model: 'hang' });
    let killedMs = 0;
    peer.once('message', () => {
      killedMs = performance.now();
      peer.kill('SIGKILL');
    });
    const error = await failure(labelsOf(app));
    expect(error.code).toBe('UNREACHABLE');
    expect(killedMs).toBeGreaterThan(0);
    expect(performance.now() - killedMs).toBeLessThan(20_000);
  } finally {
    peer.kill('SIGKILL');
  }
});
