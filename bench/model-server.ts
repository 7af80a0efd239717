/**
 * A network on a model server against the bare gRPC call with the same tensor: an identity of 96³ float32. The server is a process of its own;
 * TOMAAT_MODEL_SERVER=grpc://HOST:PORT and TOMAAT_MODEL=NAME measure another one, such as Triton with a model that gives back its input.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { parseModelServer, type ServedSpec, type Tensor } from '@tomaat/core';
import { openServedNetwork } from '../packages/server/src/runtimes/oip.ts';
import { endWithThis, nodeOptions } from './processes.ts';
import { type BenchOptions, type BenchResult, inTurn, median } from './report.ts';

const peerFile = fileURLToPath(new URL('../packages/server/test/oip-peer-process.ts', import.meta.url));
const protoFile = fileURLToPath(new URL('../packages/server/test/oip.proto', import.meta.url));
const edge = 96;

export async function run({ quick }: BenchOptions): Promise<BenchResult> {
  const rounds = quick ? 15 : 60;
  const given = process.env.TOMAAT_MODEL_SERVER;
  const peer = given === undefined ? fork(peerFile, { execArgv: nodeOptions }) : undefined;
  if (peer) endWithThis(peer);
  try {
    const [{ port }] = peer ? ((await once(peer, 'message')) as [{ port: number }]) : [{ port: 0 }];
    const url = given ?? `grpc://127.0.0.1:${port}`;
    const model = process.env.TOMAAT_MODEL ?? 'identity';
    const data = Float32Array.from({ length: edge ** 3 }, (_, i) => Math.sin(i));
    const tensor: Tensor = { data, dims: [1, 1, edge, edge, edge] };

    const bare = openBareCall(url, model);
    const spec = { runtime: 'oip', url, model, inferer: { type: 'simple' } } as ServedSpec;
    const permitted = { allowNet: [], keys: {} };
    const session = await openServedNetwork({ spec, address: parseModelServer(url)!, permitted }, 60_000);
    const time = async (work: (tensor: Tensor) => Promise<{ data: ArrayLike<number> }>) => {
      const start = performance.now();
      const { data: found } = await work(tensor);
      const ms = performance.now() - start;
      if (found.length !== data.length || found[12_345] !== data[12_345])
        throw new Error('wrong numbers came back');
      return ms;
    };
    const ownCall = () => time(session.run);
    const bareCall = () => time(bare.run);
    for (let i = 0; i < 5; i++) await inTurn(1, bareCall, ownCall);
    const pairs = await inTurn(rounds, bareCall, ownCall);
    session.close();
    bare.close();
    const [bareMs, ownMs] = [0, 1].map((at) => median(pairs.map((pair) => pair[at])));
    console.log(
      `bare call p50 ${bareMs.toFixed(1)} ms, by the runtime p50 ${ownMs.toFixed(1)} ms (${url}, ${model})`,
    );
    return {
      lines: [
        { point: 'window of 96³ on a model server, over gRPC, p50', measured: ownMs / bareMs, target: 1.2 },
        { point: 'window of 96³ on a model server, p50', measured: ownMs, unit: 'ms' },
      ],
    };
  } finally {
    peer?.kill('SIGKILL');
  }
}

/** The call that a program makes with the library and the protocol's own file, and nothing else. */
function openBareCall(
  url: string,
  model: string,
): { run(tensor: Tensor): Promise<{ data: Float32Array }>; close(): void } {
  const definition = grpc.loadPackageDefinition(loadSync(protoFile, { longs: Number, keepCase: true }));
  // biome-ignore lint/suspicious/noExplicitAny: the library makes the client from the file
  const Service = (definition as any).inference.GRPCInferenceService;
  const client = new Service(url.replace('grpc://', ''), grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    'grpc.max_send_message_length': -1,
  });
  return {
    run: ({ data, dims }) =>
      new Promise((resolve, reject) => {
        const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
        const inputs = [{ name: 'image', datatype: 'FP32', shape: dims }];
        client.ModelInfer(
          { model_name: model, inputs, raw_input_contents: [bytes] },
          (error: Error | null, answer: { raw_output_contents: Buffer[] }) => {
            if (error) reject(error);
            else resolve({ data: new Float32Array(new Uint8Array(answer.raw_output_contents[0]).buffer) });
          },
        );
      }),
    close: () => client.close(),
  };
}
