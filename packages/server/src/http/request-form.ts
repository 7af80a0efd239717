import {
  type Input,
  isVolumeMediaType,
  type OutputFormat,
  primaryOutput,
  TomaatError,
  type VolumeFactsOf,
  volumeInputs,
} from '@tomaat/core';
import type { App } from '../apps.ts';
import type { BodyPart } from '../intake/body-part.ts';
import { readMultipart } from '../intake/multipart.ts';
import type { ReceiveOptions } from '../intake/receive-input.ts';
import { readUrlencoded } from '../intake/urlencoded.ts';
import { requireFormat } from './outputs.ts';

/** A kind of body that a protocol accepts. */
export interface BodyKind {
  /** Whether a content type is of this kind. */
  takes(contentType: string): boolean;
  /** How it encodes files. */
  readonly encoding: NonNullable<ReceiveOptions['encoding']>;
  /** The most bytes of the body per byte of a file. */
  readonly growth: number;
  /** The values in the body, in their order. Each has the name of an input. */
  read(body: AsyncIterable<Uint8Array>, contentType: string, app: App): AsyncIterable<BodyPart>;
}

/** A file that is on the server: the id of an upload, or the SHA-256 of a file of the caller's. */
export type FileRef = { readonly upload: string } | { readonly blob: string; readonly fileName?: string };

/** How a protocol writes a request for a prediction: all that `receivePrediction()` needs to know about it. */
export interface RequestForm {
  /** The bodies it accepts; the first kind that matches reads the body. */
  readonly bodies: readonly BodyKind[];
  /** The advice to the sender of another body: a sentence without its full stop. */
  readonly advice: string;
  /** Whether a body of JSON may name files that were uploaded before (named-inputs.ts). */
  readonly takesUploads: boolean;
  /** Whether the query may hold parameters and `format`, and a part of the body may be `frame`. */
  readonly takesOptions: boolean;
  /** Whether an unknown parameter is ignored; otherwise it is refused. */
  readonly ignoresUnknown: boolean;
  /** The part with the file itself, if the protocol encodes the file of this input specially; otherwise undefined. */
  decodeFile?(part: BodyPart, input: Input): Promise<BodyPart | undefined>;
  /** Files besides those in the body, which is read by now: the caller's, uploaded before, for an input. */
  moreFiles?(app: App): Promise<readonly { name: string; refs: readonly FileRef[] }[]>;
  /**
   * The formats of the outputs, by name; those of the app if there are none. Throws NOT_ACCEPTABLE if an output is not
   * available in the wanted one.
   */
  formats(app: App, wanted: WantedFormats): Record<string, OutputFormat> | undefined;
  /** Throws if the protocol cannot use volumes of these shapes, by their inputs. */
  checkShapes?(shapes: Readonly<Record<string, VolumeFactsOf>>): void;
}

/** The formats that a request asks for. */
export interface WantedFormats {
  /** Of the primary output. */
  readonly format?: string;
  /** By the names of the outputs. */
  readonly formats?: Readonly<Record<string, string>>;
}

/** The most files of a request, in a form or named as uploads. */
export const mostFiles = 4096;

/** multipart/form-data, with unencoded files. */
export const multipart: BodyKind = {
  takes: (type) => /^multipart\/form-data\b/i.test(type),
  encoding: 'raw',
  growth: 1,
  read: (body, contentType) => readMultipart(body, contentType, { maxFiles: mostFiles }),
};

/** A form without files, for apps without file inputs. */
export const urlencoded: BodyKind = {
  takes: (type) => /^application\/x-www-form-urlencoded\b/i.test(type),
  encoding: 'raw',
  growth: 1,
  read: (body, _contentType, app) => readUrlencoded(refuseFile(body, app)),
};

/** Besides the media types of volumes: bytes of any kind, an archive of files, one DICOM file. */
const bareTypes = /^application\/(?:octet-stream|zip|x-zip-compressed|dicom)\b/i;

/** Only the file of the first volume. */
export const bareVolume: BodyKind = {
  takes: (type) => bareTypes.test(type) || isVolumeMediaType(type),
  encoding: 'raw',
  growth: 1,
  async *read(body, contentType, app) {
    const [name] = volumeInputs(app.manifest);
    if (name === undefined)
      throw new TomaatError(
        'BAD_INPUT',
        'This service takes no volume. Send its inputs as multipart/form-data.',
      );
    yield { name, fileName: undefined, contentType, body };
  },
};

/** The form of the API and of the promise. */
export const apiForm: RequestForm = {
  bodies: [multipart, urlencoded, bareVolume],
  advice:
    'Send multipart/form-data with a part for each input, the volume alone as application/octet-stream, or JSON that names uploads',
  takesUploads: true,
  takesOptions: true,
  ignoresUnknown: false,
  formats({ manifest }, { format, formats = {} }) {
    const wanted = { ...(format !== undefined && { [primaryOutput(manifest)]: format }), ...formats };
    if (Object.keys(wanted).length === 0) return undefined;
    const found = Object.entries(wanted).map(([name, one]) => {
      const output = Object.hasOwn(manifest.outputs, name) ? manifest.outputs[name] : undefined;
      if (output) return [name, requireFormat(one, { name, type: output.type })] as const;
      throw new TomaatError(
        'BAD_INPUT',
        `formats names an output that this service does not have. Its outputs are: ${Object.keys(manifest.outputs).join(', ')}.`,
        { field: 'formats' },
      );
    });
    return Object.fromEntries(found);
  },
};

/** The `formats` of a query: `segmentation:zip,measurements:csv`. */
export function parseFormats(text: string | undefined): Record<string, string> | undefined {
  if (text === undefined || text === '') return undefined;
  const pairs = text.split(',').map((pair) => pair.split(':'));
  if (pairs.length <= mostFormats && pairs.every((pair) => pair.length === 2 && !pair.includes('')))
    return Object.fromEntries(pairs);
  throw new TomaatError(
    'BAD_INPUT',
    'formats is a list of output names with their formats. Send it as NAME:FORMAT,NAME:FORMAT.',
    { field: 'formats' },
  );
}

const mostFormats = 100;

/**
 * A form as received, which is ASCII without control characters (WHATWG URL, 5.2). Otherwise it is a file: `curl --data-binary`
 * calls everything a form unless a type is given.
 */
async function* refuseFile(body: AsyncIterable<Uint8Array>, { manifest }: App): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    if (chunk.some((byte) => byte < 0x20 || byte > 0x7e)) {
      const volumes = volumeInputs(manifest);
      const name = volumes.length > 1 ? volumes[0] : 'volume';
      throw new TomaatError(
        'BAD_REQUEST',
        `The body is a file, but its Content-Type is application/x-www-form-urlencoded, a form. With curl, add -H 'Content-Type: application/octet-stream', or send the file with -F ${name}=@FILE instead of --data-binary.`,
        { field: 'Content-Type' },
      );
    }
    yield chunk;
  }
}
