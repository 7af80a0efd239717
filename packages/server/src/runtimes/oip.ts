import { setTimeout as delay } from 'node:timers/promises';
import {
  chooseInput,
  chooseOutput,
  convertOutput,
  type LabelTensor,
  type NetworkSession,
  parseModelServer,
  type ServedSpec,
  type Tensor,
  TomaatError,
  toHalf,
  type NetworkValue as Value,
} from '@tomaat/core';
import { serverFault } from './oip-faults.ts';
import type { AnsweredTensor, ModelFacts, TensorFacts } from './oip-messages.ts';
import { connectMs, type ModelServer, nameOf, type ServedModel } from './oip-server.ts';
import type { Runtime } from './runtime.ts';

interface Datatype {
  /** As onnxruntime calls it. */
  readonly type: string;
  /** Bytes of a number. */
  readonly size: number;
  read(buffer: ArrayBuffer, offset: number, count: number): unknown;
}

const datatype = (
  type: string,
  Numbers: {
    readonly BYTES_PER_ELEMENT: number;
    new (buffer: ArrayBuffer, offset: number, count: number): unknown;
  },
): Datatype => ({
  type,
  size: Numbers.BYTES_PER_ELEMENT,
  read: (buffer, offset, count) => new Numbers(buffer, offset, count),
});

/** The types of the protocol that can be read. */
const datatypes: Readonly<Record<string, Datatype | undefined>> = {
  FP32: datatype('float32', Float32Array),
  FP16: datatype('float16', Uint16Array),
  FP64: datatype('float64', Float64Array),
  BOOL: datatype('bool', Uint8Array),
  UINT8: datatype('uint8', Uint8Array),
  INT8: datatype('int8', Int8Array),
  UINT16: datatype('uint16', Uint16Array),
  INT16: datatype('int16', Int16Array),
  UINT32: datatype('uint32', Uint32Array),
  INT32: datatype('int32', Int32Array),
  UINT64: datatype('uint64', BigUint64Array),
  INT64: datatype('int64', BigInt64Array),
  BF16: { type: 'float32', size: 2, read: fromBrainFloat },
};

/** The upper half of float32. */
function fromBrainFloat(buffer: ArrayBuffer, offset: number, count: number): Float32Array {
  const halves = new Uint16Array(buffer, offset, count);
  const words = new Uint32Array(count);
  for (let i = 0; i < count; i++) words[i] = halves[i] << 16;
  return new Float32Array(words.buffer);
}

/** How long a model server that starts is waited for, and the pause between two attempts. */
const patienceMs = 2000;
const pauseMs = 500;
/** Most channels of an answer whose server does not state them. */
const maxChannels = 512;

/** The `oip` runtime of an app's manifest. */
export const oipRuntime: Runtime<ServedSpec> = {
  name: 'oip',
  description:
    'A network on a model server (Triton, KServe, MLServer), by the Open Inference Protocol, version 2',
  async open({ manifest }, spec, { modelServers }) {
    const address = parseModelServer(spec.url);
    if (!address) throw new TomaatError('INTERNAL', `${spec.url} is not the address of a model server.`);
    const served = { spec, address, permitted: modelServers ?? { allowNet: [], keys: {} } };
    const limitMs = (spec.timeoutSeconds ?? manifest.limits.seconds) * 1000;
    return { kind: 'network', session: await openServedNetwork(served, limitMs) };
  },
};

export interface ServedNetwork extends NetworkSession {
  close(): void;
}

/**
 * A network on a model server as a session. The connection is made at once and again where it broke: an inference is asked for a second
 * time if the connection was made for an earlier one, because the server may have been restarted in between.
 * @param limitMs longest time of one call
 * @throws {TomaatError} the errors of `oip-faults.ts`; BAD_MANIFEST if the model is not a network that takes one float tensor
 */
export async function openServedNetwork(served: ServedModel, limitMs: number): Promise<ServedNetwork> {
  const { spec } = served;
  const name = nameOf(spec);
  let opening: Promise<ModelServer> | undefined = openWhenUp(served);
  const server = await opening;
  let ports: Ports;
  try {
    ports = choosePorts(await readyFacts(server, served), served);
  } catch (error) {
    server.close();
    throw error;
  }
  const { input, inputType, output } = ports;

  async function ask({ data, dims }: Tensor): Promise<AnsweredTensor> {
    const numbers = inputType === 'FP16' ? toHalf(data) : data;
    const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
    const request = {
      input: { name: input.name, datatype: inputType, shape: dims, bytes },
      output: output?.name,
    };
    const limits = { limitMs, maxBytes: mostBytes(dims, output, spec.inferer.type === 'slice') };
    const earlier = opening;
    opening ??= openWhenUp(served);
    try {
      return await (await opening).infer(request, limits);
    } catch (error) {
      if (!(error instanceof TomaatError) || error.code !== 'UNREACHABLE') throw error;
      drop(opening);
      opening = undefined;
      if (!earlier) throw error;
    }
    opening = openWhenUp(served);
    return await (await opening).infer(request, limits);
  }

  return {
    inputDims:
      input.shape.length > 0 ? input.shape.map((n) => (typeof n === 'number' ? n : null)) : undefined,
    async run(tensor) {
      return toTensor(await ask(tensor), tensor, served, name);
    },
    close() {
      if (opening) drop(opening);
    },
  };
}

/** Closes a connection, also one that is still being made. */
function drop(opening: Promise<ModelServer>): void {
  opening.then(
    (server) => server.close(),
    () => {},
  );
}

/** A connection; a few attempts while the server starts. */
async function openWhenUp(served: ServedModel): Promise<ModelServer> {
  const startedMs = performance.now();
  for (;;) {
    try {
      if (served.address.protocol === 'http')
        return await (await import('./oip-http.ts')).openHttpServer(served);
      return await (await import('./oip-grpc.ts')).openGrpcServer(served);
    } catch (error) {
      const mayStart = error instanceof TomaatError && error.code === 'UNREACHABLE';
      if (!mayStart || performance.now() - startedMs > patienceMs) throw error;
    }
    await delay(pauseMs);
  }
}

/** What the server says of the model, once it is ready for it. */
async function readyFacts(server: ModelServer, served: ServedModel): Promise<ModelFacts> {
  const startedMs = performance.now();
  while (performance.now() - startedMs < patienceMs) {
    if (await server.isReady(connectMs)) return await server.facts(connectMs);
    // A server that does not have the model says so here.
    await server.facts(connectMs);
    await delay(pauseMs);
  }
  throw serverFault('away', 'the server has not loaded it yet', served);
}

interface Ports {
  readonly input: Value;
  /** In the protocol's words. */
  readonly inputType: string;
  /** Undefined where the server does not list outputs, and the manifest names none. */
  readonly output?: Value;
}

/** The input and output of the model that are used. Servers that list none are taken at the manifest's word. */
function choosePorts({ inputs, outputs }: ModelFacts, { spec }: ServedModel): Ports {
  const name = nameOf(spec);
  if (inputs.length === 0 && spec.input === undefined) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The model server does not list the inputs of the model ${name}. Name its input in model.input.`,
      { field: 'model.input' },
    );
  }
  const listed = (values: readonly TensorFacts[], own: string | undefined) =>
    values.length === 0 && own !== undefined
      ? [{ name: own, type: 'float32', shape: [] }]
      : values.map(toValue);
  const input = chooseInput(listed(inputs, spec.input), name, spec.input, spec.inferer.type === 'slice');
  const known = listed(outputs, spec.output);
  const output = known.length > 0 ? chooseOutput(known, name, spec.output) : undefined;
  return { input, inputType: input.type === 'float16' ? 'FP16' : 'FP32', output };
}

const toValue = ({ name, datatype, shape }: TensorFacts): Value => ({
  name,
  type: datatypes[datatype]?.type ?? datatype,
  shape: shape.map((n) => (n < 0 ? '' : n)),
});

/** The largest answer that can be right: numbers of 8 bytes on the input's grid, and room for what is around them. */
function mostBytes(dims: readonly number[], output: Value | undefined, slices: boolean): number {
  const axes = slices ? 2 : 3;
  // The channels are the dimension before the axes; labels may have none.
  const channels = output?.shape.at(-axes - 1);
  const most = typeof channels === 'number' ? channels : maxChannels;
  const voxels = dims.slice(-axes).reduce((a, b) => a * b, 1);
  return voxels * most * 8 + 1024 ** 2;
}

/**
 * An answer as core takes it: with as many numbers as its shape has.
 * @throws {TomaatError} APP_OUTPUT
 */
function toTensor(
  { datatype, shape, bytes }: AnsweredTensor,
  { dims }: Tensor,
  { spec }: ServedModel,
  name: string,
): Tensor | LabelTensor {
  const wrong = (what: string, remedy: string) =>
    new TomaatError('APP_OUTPUT', `The model ${name} gave ${what} for ${dims.join(' × ')}. ${remedy}`, {
      field: 'model',
    });
  const found = datatypes[datatype];
  if (!found) {
    throw wrong(
      `numbers of the type ${datatype.slice(0, 20)}`,
      `Use a model with an output of the type ${Object.keys(datatypes).join(', ')}.`,
    );
  }
  const shown = shape.slice(0, 8).join(' × ');
  const isShape = shape.every((n) => Number.isSafeInteger(n) && n > 0);
  const length = shape.reduce((a, b) => a * b, 1) * found.size;
  if (!isShape || length !== bytes.length) {
    throw wrong(
      `${bytes.length} bytes for a tensor of ${shown || 'no dimensions'} of the type ${datatype}`,
      'Report it to the author of the model.',
    );
  }
  const batched = dims.length === (spec.inferer.type === 'slice' ? 4 : 5);
  if (batched && shape[0] !== 1)
    throw wrong(`a tensor of ${shown}`, 'The first dimension is the batch, and must be 1 as it was sent.');
  // Typed arrays have to begin at a multiple of their numbers' size, which a part of a message rarely does.
  const aligned = bytes.byteOffset % found.size === 0 ? bytes : new Uint8Array(bytes);
  const count = bytes.length / found.size;
  const data = found.read(aligned.buffer as ArrayBuffer, aligned.byteOffset, count);
  return convertOutput({ type: found.type, data, dims: shape }, name);
}
