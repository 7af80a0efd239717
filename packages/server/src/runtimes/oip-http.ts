import { TomaatError } from '@tomaat/core';
import { z } from 'zod';
import { createGuardedFetch } from '../trust/guarded-fetch.ts';
import { connectionFault, type Fault, serverFault } from './oip-faults.ts';
import type { AnsweredTensor, ModelFacts } from './oip-messages.ts';
import { connectMs, findServer, keyOf, type ModelServer, rulesOf, type ServedModel } from './oip-server.ts';

/**
 * Model servers by HTTP with the extension binary_tensor_data: a JSON header, and after it the tensor as it is in memory. Source:
 * https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
 * Numbers as JSON would take a second for each window, so a server without the extension is refused.
 */

const maxFactsBytes = 4 * 1024 ** 2;
/** The header of an answer: a line for each output. */
const maxHeaderBytes = 256 * 1024;
const headerLength = 'inference-header-content-length';

const faults: Readonly<Record<number, Fault>> = {
  401: 'refused',
  403: 'refused',
  404: 'unknown',
  503: 'away',
};

const tensorSchema = z.object({
  name: z.string(),
  datatype: z.string(),
  shape: z.array(z.number()).max(32),
});
const factsSchema = z.object({
  inputs: z.array(tensorSchema).default([]),
  outputs: z.array(tensorSchema).default([]),
});
const serverSchema = z.object({ extensions: z.array(z.string()).default([]) });
const answerSchema = z.object({
  outputs: z.array(
    tensorSchema.extend({
      parameters: z.object({ binary_data_size: z.int().min(0).optional() }).optional(),
    }),
  ),
});

/** Connects to the model server of a manifest. Throws as the calls do, and BAD_MANIFEST if it lacks the extension. */
export async function openHttpServer(served: ServedModel): Promise<ModelServer> {
  const { spec, address } = served;
  const origin = `${address.secure ? 'https' : 'http'}://${address.name}`;
  const fetch = createGuardedFetch(rulesOf(served));
  const key = keyOf(served);
  const authorization = key === undefined ? undefined : { authorization: `Bearer ${key}` };
  const version = spec.version === undefined ? '' : `/versions/${spec.version}`;
  const modelPath = `/v2/models/${spec.model}${version}`;

  async function ask(
    path: string,
    limitMs: number,
    {
      body,
      headers,
      doing,
    }: { body?: Uint8Array<ArrayBuffer>; headers?: Record<string, string>; doing?: string } = {},
  ): Promise<Response> {
    let answer: Response;
    try {
      answer = await fetch(origin + path, {
        method: body ? 'POST' : 'GET',
        headers: { ...headers, ...authorization },
        body: body && new Blob([body]),
        signal: AbortSignal.timeout(limitMs),
      });
    } catch (cause) {
      throw faultOf(cause, doing);
    }
    if (answer.ok) return answer;
    const said = await textOf(answer, 2000).catch(() => '');
    // Without a model in the path, 404 means that the address is that of something else.
    const fault = answer.status === 404 && path === '/v2' ? 'foreign' : (faults[answer.status] ?? 'failed');
    throw serverFault(fault, `${answer.status} ${said}`, served, doing);
  }

  function faultOf(cause: unknown, doing?: string): Error {
    const { name } = cause as Error;
    if (name === 'TimeoutError') return serverFault('late', 'no answer', served, doing);
    return connectionFault(cause, served);
  }

  async function textOf(answer: Response, maxBytes: number): Promise<string> {
    return new TextDecoder().decode(await readBody(answer, maxBytes));
  }

  /** The whole body. A RangeError if it is larger. */
  async function readBody(answer: Response, maxBytes: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let length = 0;
    for await (const part of (answer.body ?? []) as AsyncIterable<Uint8Array>) {
      length += part.length;
      if (length > maxBytes) throw new RangeError(`more than ${maxBytes} bytes`);
      parts.push(part);
    }
    return parts.length === 1 ? parts[0] : Buffer.concat(parts, length);
  }

  async function read<T>(answer: Response, maxBytes: number, parse: (bytes: Uint8Array) => T): Promise<T> {
    try {
      return parse(await readBody(answer, maxBytes));
    } catch (cause) {
      if (cause instanceof RangeError) throw serverFault('large', cause.message, served);
      if (cause instanceof SyntaxError || cause instanceof z.ZodError)
        throw serverFault('foreign', 'the answer has another form', served);
      throw faultOf(cause);
    }
  }

  const readJson = <T>(answer: Response, schema: z.ZodType<T>): Promise<T> =>
    read(answer, maxFactsBytes, (bytes) => schema.parse(JSON.parse(new TextDecoder().decode(bytes))));

  await findServer(served).catch((cause: unknown) => {
    throw connectionFault(cause, served);
  });
  const { extensions } = await readJson(await ask('/v2', connectMs), serverSchema);
  if (!extensions.includes('binary_tensor_data')) {
    throw new TomaatError(
      'BAD_MANIFEST',
      `The model server ${address.name} does not list the extension binary_tensor_data, without which tensors would travel as text. Give its gRPC address in model.url: grpc://HOST:PORT.`,
      { field: 'model.url' },
    );
  }

  return {
    async isReady(limitMs) {
      try {
        await (await ask(`${modelPath}/ready`, limitMs)).body?.cancel();
        return true;
      } catch (error) {
        // Triton answers 400 for a model that it does not have or has not loaded; its metadata say which.
        if (error instanceof TomaatError && error.code === 'APP_FAILED') return false;
        throw error;
      }
    },
    facts: async (limitMs): Promise<ModelFacts> => {
      try {
        return await readJson(await ask(modelPath, limitMs), factsSchema);
      } catch (error) {
        // The same 400 again.
        if (
          error instanceof TomaatError &&
          error.code === 'APP_FAILED' &&
          /unknown model/i.test(error.message)
        )
          throw serverFault('unknown', '', served);
        throw error;
      }
    },
    async infer({ input: { bytes, ...input }, output }, { limitMs, maxBytes }) {
      const doing = `on a tensor of ${input.shape.join(' × ')}`;
      const head = new TextEncoder().encode(
        JSON.stringify({
          inputs: [{ ...input, parameters: { binary_data_size: bytes.length } }],
          ...(output === undefined
            ? { parameters: { binary_data_output: true } }
            : { outputs: [{ name: output, parameters: { binary_data: true } }] }),
        }),
      );
      const body = new Uint8Array(head.length + bytes.length);
      body.set(head);
      body.set(bytes, head.length);
      const answer = await ask(`${modelPath}/infer`, limitMs, {
        body,
        headers: { 'content-type': 'application/octet-stream', [headerLength]: String(head.length) },
        doing,
      });
      const headBytes = Number(answer.headers.get(headerLength));
      if (!(headBytes > 0 && headBytes <= maxHeaderBytes)) {
        await answer.body?.cancel();
        throw serverFault('failed', 'it answered in text, without binary data', served, doing);
      }
      return read(answer, maxBytes + maxHeaderBytes, (whole) => pick(whole, headBytes, output, doing));
    },
    close: () => {},
  };

  /** The wanted tensor of an answer; the binary data follow the header in the order of the outputs. */
  function pick(
    whole: Uint8Array,
    headBytes: number,
    wanted: string | undefined,
    doing: string,
  ): AnsweredTensor {
    const { outputs } = answerSchema.parse(
      JSON.parse(new TextDecoder().decode(whole.subarray(0, headBytes))),
    );
    let at = headBytes;
    for (const { parameters, ...tensor } of outputs) {
      const size = parameters?.binary_data_size;
      if (wanted === undefined || tensor.name === wanted) {
        if (size === undefined || at + size > whole.length)
          throw serverFault('failed', 'its answer is truncated, or in text', served, doing);
        return { ...tensor, bytes: whole.subarray(at, at + size) };
      }
      at += size ?? 0;
    }
    throw serverFault('failed', `no output ${wanted ?? ''}`, served, doing);
  }
}
