import { z } from 'zod';
import type { ResponseHeader } from '../response-headers.ts';

/** The named fields of a form: files, and values as text. Other fields may be sent with them. */
export interface FormFields {
  readonly files: Record<string, string>;
  readonly texts?: Record<string, string>;
}

/** A request header: its meaning and its allowed values. */
export interface RequestHeader {
  readonly description: string;
  readonly schema: z.ZodType;
  readonly required?: boolean;
}

export interface EndpointResponse {
  readonly description: string;
  /** In addition to those of every response. A page of another origin may read these (`exposedHeaders`). */
  readonly headers?: readonly ResponseHeader[];
  readonly content?: Record<string, z.ZodType | 'binary'>;
}

/** What answers over HTTP. */
export const programs = ['server', 'registry', 'gateway'] as const;
export type Program = (typeof programs)[number];

export interface Endpoint {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'OPTIONS';
  readonly path: string;
  /** `both`: server and registry. */
  readonly on: Program | 'both' | 'all';
  readonly tag:
    | 'services'
    | 'jobs'
    | 'uploads'
    | 'workers'
    | 'promise'
    | 'v1'
    | 'monailabel'
    | 'auto3dseg'
    | 'registry'
    | 'gateway'
    | 'login'
    | 'operations';
  readonly summary: string;
  readonly description?: string;
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly headers?: Record<string, string | RequestHeader>;
  readonly body?: {
    readonly description: string;
    readonly content: Record<string, z.ZodType | 'binary' | FormFields>;
  };
  readonly responses: Record<number, EndpointResponse>;
}

/** Whether a program has this endpoint. */
export const isOn = ({ on }: Endpoint, program: Program): boolean =>
  on === program || on === 'all' || (on === 'both' && program !== 'gateway');

/** A JSON response. */
export const json = <T extends z.ZodType>(schema: T, description: string) => ({
  description,
  content: { 'application/json': schema },
});
export const idParam = z.object({ id: z.string() });
/** Request headers of a file that has an ETag. */
export const fileRequestHeaders = {
  Range: 'bytes=FIRST-LAST, bytes=FIRST- or bytes=-LENGTH; several ranges are answered with the whole file',
  'If-Range': 'The ETag that the first part came with: the range is sent only if the file is still the same',
  'If-None-Match': 'ETags of what is there already',
};
/** The answers to a request for such a file. */
export const fileResponses = {
  200: {
    description: 'The file',
    headers: ['Content-Disposition', 'ETag', 'Accept-Ranges'],
    content: { 'application/octet-stream': 'binary' },
  },
  206: {
    description: 'The range; Content-Range states its position',
    content: { 'application/octet-stream': 'binary' },
  },
  304: { description: 'It has the ETag of If-None-Match' },
} as const satisfies Endpoint['responses'];
