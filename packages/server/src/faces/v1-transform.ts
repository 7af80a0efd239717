import { TomaatError } from '@tomaat/core';
import { decodeBase64 } from '../intake/base64.ts';
import { type BodyPart, peek } from '../intake/body-part.ts';

/** v1's transform: a first line `nii.gz`, `h5` or `mat`, then the file in base64. As a part that holds the file. */
export async function decodeV1Transform(part: BodyPart): Promise<BodyPart> {
  const { prefix, body } = await peek(part.body, 16);
  const firstLine = /^(nii\.gz|h5|mat)\r?\n/.exec(Buffer.from(prefix).toString('latin1'));
  if (!firstLine) {
    throw new TomaatError(
      'BAD_INPUT',
      `${part.name} must begin with a line nii.gz, h5 or mat, followed by the file in base64.`,
      { field: part.name },
    );
  }
  return {
    ...part,
    fileName: `${part.name}.${firstLine[1]}`,
    body: decodeBase64(skip(body, firstLine[0].length)),
  };
}

async function* skip(source: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array> {
  let left = bytes;
  for await (const chunk of source) {
    if (left >= chunk.length) left -= chunk.length;
    else {
      yield left > 0 ? chunk.subarray(left) : chunk;
      left = 0;
    }
  }
}
