import { subscribe } from 'node:diagnostics_channel';
import { isIPv6, type Socket } from 'node:net';
import {
  type CallOptions,
  type ChannelCredentials,
  Client,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import { defaultAuthorities } from '../trust/authorities.ts';
import { connectionFault, type Fault, serverFault } from './oip-faults.ts';
import {
  decodeInfer,
  decodeMetadata,
  decodeReady,
  encodeInfer,
  encodeModelName,
  type InferRequest,
} from './oip-messages.ts';
import { findServer, keepAliveMs, keyOf, type ModelServer, type ServedModel } from './oip-server.ts';

/** Model servers by gRPC: tensors travel as they are in memory, in `raw_input_contents`. */

const service = '/inference.GRPCInferenceService/';
/** For everything but tensors. */
const maxFactsBytes = 4 * 1024 ** 2;
/** Of HTTP/2, for messages of a few MB: the default of 64 KB would wait for the other side at every piece. */
const windowBytes = 8 * 1024 ** 2;

/** What each status of a call means; all others are failures of the model. */
const faults: Readonly<Partial<Record<status, Fault>>> = {
  [status.UNAVAILABLE]: 'away',
  // Nothing here cancels a call by itself: a server that stops does.
  [status.CANCELLED]: 'away',
  [status.DEADLINE_EXCEEDED]: 'late',
  [status.UNAUTHENTICATED]: 'refused',
  [status.PERMISSION_DENIED]: 'refused',
  [status.NOT_FOUND]: 'unknown',
  [status.UNIMPLEMENTED]: 'foreign',
};

/** The library opens its sockets itself, and pings of HTTP/2 are punished by servers that compute for minutes. */
let watchesSockets = false;
function keepSocketsAlive(): void {
  if (watchesSockets) return;
  watchesSockets = true;
  subscribe('net.client.socket', (message) => {
    (message as { socket: Socket }).socket.setKeepAlive(true, keepAliveMs);
  });
}

/** Connects to the model server of a manifest. Throws as the calls do. */
export async function openGrpcServer(served: ServedModel): Promise<ModelServer> {
  const { spec, address } = served;
  const found = await findServer(served).catch((cause: unknown) => {
    throw connectionFault(cause, served);
  });
  keepSocketsAlive();
  const target = isIPv6(found) ? `ipv6:[${found}]:${address.port}` : `ipv4:${found}:${address.port}`;
  const metadata = new Metadata();
  const key = keyOf(served);
  if (key !== undefined) metadata.set('authorization', `Bearer ${key}`);

  const open = (maxBytes: number): Client =>
    new Client(target, credentialsOf(served), {
      'grpc.default_authority': address.name,
      ...(address.secure && { 'grpc.ssl_target_name_override': address.host }),
      // The address was checked: nothing may lead elsewhere.
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      'grpc.enable_channelz': 0,
      'grpc.use_local_subchannel_pool': 1,
      'grpc.max_send_message_length': -1,
      'grpc.max_receive_message_length': maxBytes,
      'grpc-node.flow_control_window': windowBytes,
    });
  let client = open(maxFactsBytes);
  let maxAnswerBytes = maxFactsBytes;

  function call<T>(
    method: string,
    message: () => Uint8Array,
    decode: (answer: Uint8Array) => T,
    { limitMs, doing }: { limitMs: number; doing?: string },
  ): Promise<T> {
    const options: CallOptions = { deadline: Date.now() + limitMs };
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        service + method,
        (encode: () => Uint8Array) => asBuffer(encode()),
        (bytes: Buffer) => bytes,
        message,
        metadata,
        options,
        (error, answer) => {
          if (error) return reject(faultOf(error, served, doing));
          try {
            resolve(decode(answer!));
          } catch (cause) {
            reject(
              cause instanceof RangeError ? serverFault('foreign', cause.message, served) : (cause as Error),
            );
          }
        },
      );
    });
  }

  const modelName = () => encodeModelName(spec);
  return {
    isReady: (limitMs) => call('ModelReady', modelName, decodeReady, { limitMs }),
    facts: (limitMs) => call('ModelMetadata', modelName, decodeMetadata, { limitMs }),
    async infer(request, { limitMs, maxBytes }) {
      if (maxBytes > maxAnswerBytes) {
        client.close();
        maxAnswerBytes = maxBytes;
        client = open(maxBytes);
      }
      const whole: InferRequest = { ...request, model: spec.model, version: spec.version };
      const doing = `on a tensor of ${request.input.shape.join(' × ')}`;
      const outputs = await call('ModelInfer', () => encodeInfer(whole), decodeInfer, { limitMs, doing });
      const { output: wanted } = request;
      const output = wanted === undefined ? outputs[0] : outputs.find(({ name }) => name === wanted);
      if (!output) {
        const names = outputs.map(({ name }) => name).join(', ') || 'none';
        throw serverFault('failed', `no output ${wanted ?? ''}; it gave: ${names}`, served, doing);
      }
      const { bytes } = output;
      if (!bytes)
        throw serverFault('failed', `${output.datatype} that is not in raw_output_contents`, served, doing);
      return { ...output, bytes };
    },
    close: () => client.close(),
  };
}

function credentialsOf({ address, permitted }: ServedModel): ChannelCredentials {
  if (!address.secure) return credentials.createInsecure();
  if (permitted.ca === undefined) return credentials.createSsl(Buffer.from(defaultAuthorities().join('\n')));
  return credentials.createSsl(Buffer.from([...defaultAuthorities(), permitted.ca].join('\n')));
}

const asBuffer = ({ buffer, byteOffset, byteLength }: Uint8Array): Buffer =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);

function faultOf({ code, details }: ServiceError, served: ServedModel, doing?: string): Error {
  // The library's own refusal; servers say the same of requests.
  if (code === status.RESOURCE_EXHAUSTED && details.startsWith('Received message'))
    return serverFault('large', details, served, doing);
  // A stream that was reset, by the server or by a proxy before it.
  const isReset = code === status.INTERNAL && details.startsWith('Received RST_STREAM');
  // The library adds which names it looked up, and nothing was.
  const [said] = details.split(' Resolution note:');
  return serverFault(isReset ? 'away' : (faults[code] ?? 'failed'), said, served, doing);
}
