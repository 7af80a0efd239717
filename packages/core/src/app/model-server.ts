import { z } from 'zod';

/** The address of a server that runs models for others, such as Triton. */
export interface ModelServerAddress {
  readonly protocol: 'grpc' | 'http';
  /** Whether it is reached by TLS. */
  readonly secure: boolean;
  /** In lower case; an IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
  /** `host:port`, as in a URL. */
  readonly name: string;
}

/** How the schemes are spelled for the parser of URLs, which knows the rules of names for http alone. */
const schemes = {
  'grpc://': ['http://', 'grpc', false],
  'grpcs://': ['https://', 'grpc', true],
  'http://': ['http://', 'http', false],
  'https://': ['https://', 'http', true],
} as const;

/** Reads `grpc://host:port`; undefined for anything but a scheme, a host and a port (which http and https may leave out). */
export function parseModelServer(text: string): ModelServerAddress | undefined {
  const scheme = (Object.keys(schemes) as (keyof typeof schemes)[]).find((start) => text.startsWith(start));
  if (!scheme) return undefined;
  const [spelled, protocol, secure] = schemes[scheme];
  const address = spelled + text.slice(scheme.length);
  if (!URL.canParse(address)) return undefined;
  const url = new URL(address);
  const isPlain = url.username === '' && url.password === '' && url.search === '' && url.hash === '';
  const port = Number(url.port || (secure ? 443 : 80));
  // The usual port of http is no usual port of gRPC: it has to be written.
  const hasPort = url.port !== '' || protocol === 'http' || text.endsWith(`:${port}`);
  if (!isPlain || url.pathname !== '/' || url.hostname === '' || port === 0 || !hasPort) return undefined;
  const host = url.hostname.startsWith('[') ? url.hostname.slice(1, -1) : url.hostname;
  return { protocol, secure, host, port, name: `${url.hostname}:${port}` };
}

export const modelServerUrlSchema = z
  .string()
  .max(300)
  .refine((text) => parseModelServer(text) !== undefined, {
    error:
      'must be grpc://HOST:PORT or grpcs://HOST:PORT (http:// and https:// for servers without gRPC), without path, user and password',
  })
  .describe('Address of the model server: grpc://HOST:PORT, grpcs://, http:// or https://');
