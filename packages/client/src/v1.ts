import { TomaatError, withoutTrailingSlashes } from '@tomaat/core';
import { z } from 'zod';
import { type ConnectionOptions, callJson, openConnection, pause, readJson } from './http.ts';
import { type NamedBytes, toUploadFile, type UploadFile, upload } from './upload.ts';

/**
 * A client for servers that support only TOMAAT v1 (2018): every response is 200 with a list of elements, an error is
 * an element, a long prediction is polled.
 */

/** An element of `GET /interface`: an input of a v1 service. */
const v1InputSchema = z.looseObject({
  type: z.string(),
  destination: z.string(),
  text: z.string().optional(),
  label: z.string().optional(),
  minimum: z.coerce.number().optional(),
  maximum: z.coerce.number().optional(),
  options: z.array(z.string()).optional(),
  /** An addition of newer servers; those of 2018 do not send a default. */
  default: z.union([z.number(), z.boolean(), z.string()]).optional().catch(undefined),
});
export type V1Input = z.infer<typeof v1InputSchema>;

/**
 * The initial value of an input: its `default` if the server sends a valid one, otherwise what the 3D Slicer
 * extension of 2019 shows. A slider there starts at (maximum − minimum) / 2, within its limits; a checkbox is
 * unchecked; the first option is selected. Undefined for inputs without such a value.
 */
export function startValueV1(input: V1Input): number | boolean | string | undefined {
  const { type, minimum = 0, maximum = 1, options = [], default: stated } = input;
  if (type === 'slider') {
    const value = typeof stated === 'boolean' || stated === '' ? Number.NaN : Number(stated);
    return Math.max(minimum, Math.min(maximum, Number.isFinite(value) ? value : (maximum - minimum) / 2));
  }
  if (type === 'checkbox') return stated === true || (typeof stated === 'string' && /^true$/i.test(stated));
  if (type === 'radiobutton')
    return typeof stated === 'string' && options.includes(stated) ? stated : options[0];
  return undefined;
}

/** An element of a response. Volumes, meshes and transforms are base64; `type` is that of our outputs. */
const v1OutputSchema = z.looseObject({
  type: z.string(),
  content: z.string().optional(),
  label: z.coerce.string().default(''),
  request_id: z.coerce.string().optional(),
});
export type V1Output = z.infer<typeof v1OutputSchema>;

export interface V1Options extends Omit<ConnectionOptions, 'baseUrl'> {
  signal?: AbortSignal;
}

export interface V1PredictOptions extends V1Options {
  /** Text of each field; volumes are files that contain a .mha in base64, with a newline every 76 characters. */
  fields: Readonly<Record<string, string>>;
  files: Readonly<Record<string, UploadFile | NamedBytes | Uint8Array | ArrayBuffer>>;
  onUpload?(progress: { sentBytes: number; totalBytes: number }): void;
  /** The server has accepted the request and is computing. */
  onDelay?(): void;
  pollMs?: number;
}

/** The inputs of a v1 service, given its prediction address. */
export async function interfaceV1(predictionUrl: string, options: V1Options = {}): Promise<V1Input[]> {
  const { base, interfacePath } = pathsOf(predictionUrl);
  const connection = openConnection({ ...options, baseUrl: base });
  return (
    (await callJson(connection, interfacePath, z.array(v1InputSchema), { signal: options.signal })) ?? []
  );
}

/**
 * Runs a prediction by a v1 service and returns the elements of its response. An error element is thrown as
 * APP_FAILED: v1 does not say whose fault it was. Requests are never retried: v1 has no idempotency, and a prediction
 * cannot be cancelled.
 */
export async function predictV1(predictionUrl: string, options: V1PredictOptions): Promise<V1Output[]> {
  const { base, predictPath, responsesPath } = pathsOf(predictionUrl);
  // Old servers respond only when the prediction is done.
  const connection = openConnection({ silenceMs: 1_800_000, ...options, baseUrl: base });
  const { signal, pollMs = 1000 } = options;
  const form = {
    fields: Object.entries(options.fields).map(([name, value]) => [name, value] as const),
    files: Object.entries(options.files).map(([name, file]) => [name, toUploadFile(name, file)] as const),
  };
  const response = await upload(connection, predictPath, form, {
    onUpload: options.onUpload,
    signal,
    withoutFileNames: true,
  });
  const list = z.array(v1OutputSchema);
  // It contains volumes in base64.
  const maxBytes = Number.POSITIVE_INFINITY;
  let elements = await readJson(response, list, predictionUrl, signal, maxBytes);
  while (elements.length > 0 && elements.every((element) => element.type === 'DelayedResponse')) {
    options.onDelay?.();
    await pause(pollMs, signal);
    const body = new URLSearchParams({ request_id: elements[0].request_id ?? '' });
    elements =
      (await callJson(connection, responsesPath, list, { method: 'POST', body, signal, maxBytes })) ?? [];
  }
  const error = elements.find((element) => element.type === 'PlainText' && /^error/i.test(element.label));
  if (error) throw new TomaatError('APP_FAILED', `The service says: ${error.content ?? 'Error'}`);
  return elements;
}

function pathsOf(predictionUrl: string): {
  base: string;
  interfacePath: string;
  predictPath: string;
  responsesPath: string;
} {
  const url = new URL(predictionUrl);
  const path = withoutTrailingSlashes(url.pathname);
  const stem = path.endsWith('/predict') ? path.slice(0, -'/predict'.length) : path;
  return {
    base: url.origin,
    interfacePath: `${stem}/interface`,
    predictPath: path || '/predict',
    responsesPath: path.endsWith('/predict') ? `${stem}/responses` : '/responses',
  };
}
