import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { hasDicomWord, isZip, readPrefix, TomaatError } from '@tomaat/core';
import { diskFile } from '../store/files/disk-file.ts';
import type { PredictFlags } from './outcome.ts';
import { predict } from './predict.ts';

/**
 * `tomaat predict SERVICE - <in >out`: the volume of stdin, whose format its first bytes say, and one result on stdout, with nothing
 * else there. Returns the exit code.
 */
export async function predictPiped(
  wanted: string,
  scans: readonly string[],
  flags: PredictFlags,
): Promise<number> {
  const refuse = (message: string) => new TomaatError('BAD_INPUT', message);
  if (scans.length > 1 || (scans.length > 0 && flags.volume !== undefined))
    throw refuse('The volume is stdin (-). Leave other scans out.');
  if (
    flags.out !== undefined ||
    flags.all ||
    flags.json ||
    flags.output.length > 1 ||
    flags.csv ||
    flags.report
  )
    throw refuse('With -, one result goes to stdout. Leave -o, --all, --json, --csv and --report out.');
  if (process.stdin.isTTY)
    throw refuse('Stdin is a terminal. Pipe a volume in: tomaat predict SERVICE - <FILE.');
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-pipe-'));
  try {
    const spooled = join(folder, 'stdin');
    await pipeline(process.stdin, createWriteStream(spooled, { mode: 0o600 }));
    const { prefix } = await readPrefix(await diskFile(spooled), 512);
    if (prefix.length === 0)
      throw refuse('Stdin is empty. Pipe a volume in: tomaat predict SERVICE - <FILE.');
    const volume = join(folder, `volume.${extensionOfBytes(prefix)}`);
    await rename(spooled, volume);
    const files: string[] = [];
    const code = await predict(wanted, [], {
      ...flags,
      volume,
      out: `${join(folder, 'out')}/`,
      onFile: (file) => files.push(file),
      noteAs: 'stdin',
    });
    if (code !== 0) return code;
    await pipeline(createReadStream(files[0]), process.stdout, { end: false });
    return 0;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The file ending of a volume by its first bytes; one that is not known is left to the server, which says what is wrong. */
function extensionOfBytes(bytes: Uint8Array): string {
  const text = new TextDecoder('latin1').decode(bytes);
  if (isZip(bytes)) return 'zip';
  if (hasDicomWord(bytes)) return 'dcm';
  if (bytes[0] === 0x1f && bytes[1] === 0x8b) return 'nii.gz';
  if (text.startsWith('NRRD')) return 'nrrd';
  if (/^\s{0,20}(ObjectType|NDims|Comment)/.test(text)) return 'mha';
  return 'nii';
}
