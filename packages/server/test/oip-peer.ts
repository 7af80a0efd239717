/**
 * Model servers made for tests: they speak the Open Inference Protocol by gRPC (the messages by proto-loader, which has nothing in
 * common with the code under test) and by HTTP with binary tensors, and run whatever a test gives them as a model.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { InferenceSession, Tensor as OnnxTensor } from 'onnxruntime-node';

export interface PeerTensor {
  name: string;
  datatype: string;
  shape: readonly number[];
  bytes: Uint8Array;
}
/** With `contents`, the numbers one by one, as `{ fp32_contents: […] }`, instead of raw bytes. */
export type PeerAnswer = Omit<PeerTensor, 'bytes'> & { bytes?: Uint8Array; contents?: object };

export interface PeerModel {
  inputs?: readonly Omit<PeerTensor, 'bytes'>[];
  outputs?: readonly Omit<PeerTensor, 'bytes'>[];
  /** Ready unless it is false. */
  isReady?(): boolean;
  /** `canceled` aborts when the caller goes away. */
  infer(
    input: PeerTensor,
    canceled: AbortSignal,
  ): PeerAnswer | PeerAnswer[] | Promise<PeerAnswer | PeerAnswer[]>;
}

export interface PeerOptions {
  port?: number;
  host?: string;
  tls?: { pem: string; keyPem: string };
  /** Who may call: the value of `authorization`. */
  authorization?: string;
  /** Of the HTTP server. */
  extensions?: readonly string[];
}

export interface Peer extends AsyncDisposable {
  readonly port: number;
  /** Of each call: its name, the version that was asked for and what it had as `authorization`. */
  readonly calls: { method: string; version: string; authorization?: string }[];
  /** Ends all connections at once. */
  kill(): Promise<void>;
}

/** Every dimension free, float32 in and out. */
const free = (name: string, dimensions = 5) => ({
  name,
  datatype: 'FP32',
  shape: new Array<number>(dimensions).fill(-1),
});
const inputsOf = ({ inputs = [free('image')] }: PeerModel) => inputs;
const outputsOf = ({ outputs = [free('scores')] }: PeerModel) => outputs;

export const floats = (bytes: Uint8Array): Float32Array => new Float32Array(new Uint8Array(bytes).buffer);
export const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);

/** Gives back what it gets. */
export const identity: PeerModel = {
  infer: ({ datatype, shape, bytes }) => ({ name: 'scores', datatype, shape, bytes }),
};

/** A network that onnxruntime runs, as it is in its file. */
export async function onnxModel(file: string | Uint8Array, dimensions = 5): Promise<PeerModel> {
  const session = await InferenceSession.create(file as Uint8Array, {
    intraOpNumThreads: 1,
    logSeverityLevel: 4,
  });
  const [input] = session.inputNames;
  const [output] = session.outputNames;
  const names: Record<string, string> = { float32: 'FP32', int64: 'INT64', uint8: 'UINT8', int32: 'INT32' };
  return {
    inputs: [free(input, dimensions)],
    outputs: [free(output, dimensions)],
    async infer({ shape, bytes }) {
      const results = await session.run({ [input]: new OnnxTensor('float32', floats(bytes), shape) });
      const { type, dims, data } = results[output];
      return {
        name: output,
        datatype: names[type],
        shape: dims,
        bytes: bytesOf(data as Float32Array).slice(),
      };
    },
  };
}

/** Thrown by a model or the peer: what the caller gets instead of an answer. */
export class PeerRefusal extends Error {
  readonly code: grpc.status;
  readonly details: string;

  constructor(code: grpc.status, details: string) {
    super(details);
    this.code = code;
    this.details = details;
  }
}

const httpStatus: Partial<Record<grpc.status, number>> = {
  [grpc.status.UNAUTHENTICATED]: 401,
  [grpc.status.NOT_FOUND]: 404,
  [grpc.status.UNAVAILABLE]: 503,
};

/** What both kinds of server do with a call. */
function answerer(
  models: Readonly<Record<string, PeerModel>>,
  { authorization }: PeerOptions,
  calls: Peer['calls'],
) {
  return (method: string, name: string, version: string, given: string | undefined): PeerModel => {
    calls.push({ method, version, authorization: given });
    if (authorization !== undefined && given !== authorization)
      throw new PeerRefusal(grpc.status.UNAUTHENTICATED, `not the right key: ${given}`);
    const model = models[name];
    if (!model) throw new PeerRefusal(grpc.status.NOT_FOUND, `no model ${name}\u0007`);
    return model;
  };
}

const protoFile = fileURLToPath(new URL('./oip.proto', import.meta.url));

export async function startGrpcPeer(
  models: Readonly<Record<string, PeerModel>>,
  options: PeerOptions = {},
): Promise<Peer> {
  const calls: Peer['calls'] = [];
  const find = answerer(models, options, calls);
  const definition = grpc.loadPackageDefinition(loadSync(protoFile, { longs: Number, keepCase: true }));
  // biome-ignore lint/suspicious/noExplicitAny: the library makes the service from the file
  const { service } = (definition as any).inference.GRPCInferenceService;
  const server = new grpc.Server({
    'grpc.max_receive_message_length': -1,
    'grpc.max_send_message_length': -1,
  });
  type Call = grpc.ServerUnaryCall<Record<string, never>, unknown>;
  const handle =
    (method: string, nameKey: string, versionKey: string, work: (model: PeerModel, call: Call) => unknown) =>
    async (call: Call, reply: grpc.sendUnaryData<unknown>) => {
      try {
        const given = call.metadata.get('authorization')[0]?.toString();
        reply(null, await work(find(method, call.request[nameKey], call.request[versionKey], given), call));
      } catch (error) {
        const { code = grpc.status.INTERNAL, details = String(error) } = error as Partial<PeerRefusal>;
        reply({ code, details });
      }
    };
  server.addService(service, {
    ModelReady: handle('ModelReady', 'name', 'version', ({ isReady = () => true }) => ({ ready: isReady() })),
    ModelMetadata: handle('ModelMetadata', 'name', 'version', (model) => ({
      inputs: inputsOf(model),
      outputs: outputsOf(model),
    })),
    ModelInfer: handle('ModelInfer', 'model_name', 'model_version', async (model, call) => {
      const { inputs, raw_input_contents: raw } = call.request as unknown as {
        inputs: Omit<PeerTensor, 'bytes'>[];
        raw_input_contents: Buffer[];
      };
      const canceled = new AbortController();
      call.on('cancelled', () => canceled.abort());
      const answers = [await model.infer({ ...inputs[0], bytes: raw[0] }, canceled.signal)].flat();
      return {
        outputs: answers.map(({ bytes, ...tensor }) => tensor),
        raw_output_contents: answers.flatMap(({ bytes }) => (bytes ? [bytes] : [])),
      };
    }),
  });
  const credentials = options.tls
    ? grpc.ServerCredentials.createSsl(null, [
        { cert_chain: Buffer.from(options.tls.pem), private_key: Buffer.from(options.tls.keyPem) },
      ])
    : grpc.ServerCredentials.createInsecure();
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`${options.host ?? '127.0.0.1'}:${options.port ?? 0}`, credentials, (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const kill = async () => server.forceShutdown();
  return { port, calls, kill, [Symbol.asyncDispose]: kill };
}

export async function startHttpPeer(
  models: Readonly<Record<string, PeerModel>>,
  options: PeerOptions = {},
): Promise<Peer> {
  const calls: Peer['calls'] = [];
  const find = answerer(models, options, calls);
  const { extensions = ['binary_tensor_data'] } = options;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '';
    if (path === '/v2') return void response.end(JSON.stringify({ name: 'peer', extensions }));
    const [, , , name, ...rest] = path.split('/');
    const version = rest[0] === 'versions' ? rest[1] : '';
    const method = rest.at(version === '' ? 0 : 2) ?? 'metadata';
    const model = find(method, name, version, request.headers.authorization);
    if (method === 'metadata')
      return void response.end(JSON.stringify({ inputs: inputsOf(model), outputs: outputsOf(model) }));
    if (method === 'ready') return void response.writeHead(model.isReady?.() === false ? 400 : 200).end();
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const body = Buffer.concat(parts);
    const headLength = Number(request.headers['inference-header-content-length']);
    const head = JSON.parse(body.subarray(0, headLength).toString());
    const canceled = new AbortController();
    response.once('close', () => canceled.abort());
    const bytes = body.subarray(headLength, headLength + head.inputs[0].parameters.binary_data_size);
    const answers = [await model.infer({ ...head.inputs[0], bytes }, canceled.signal)].flat();
    const text = JSON.stringify({
      outputs: answers.map(({ bytes, contents, ...tensor }) => ({
        ...tensor,
        ...(bytes ? { parameters: { binary_data_size: bytes.length } } : contents),
      })),
    });
    if (answers.every(({ bytes }) => bytes))
      response.setHeader('inference-header-content-length', Buffer.byteLength(text));
    response.write(text);
    for (const { bytes } of answers) if (bytes) response.write(bytes);
    response.end();
  }

  const listener = (request: IncomingMessage, response: ServerResponse) =>
    void answer(request, response).catch((error: Partial<PeerRefusal>) => {
      response
        .writeHead(httpStatus[error.code as grpc.status] ?? 500)
        .end(JSON.stringify({ error: error.details }));
    });
  const server = options.tls
    ? createTlsServer({ cert: options.tls.pem, key: options.tls.keyPem }, listener)
    : createServer(listener);
  server.listen(options.port ?? 0, options.host ?? '127.0.0.1');
  await once(server, 'listening');
  const kill = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return { port: (server.address() as AddressInfo).port, calls, kill, [Symbol.asyncDispose]: kill };
}
