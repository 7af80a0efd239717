import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { type Receipt, verifyReceipt } from '@tomaat/client';
import { hashFile } from '../store/files/hash-file.ts';
import { anonymousInputs } from './anonymous-input.ts';
import { formatBytes, plain } from './console.ts';
import { mustBeFile, volumeFiles, volumePaths } from './input-files.ts';

export interface VerifyFlags {
  volume: readonly string[];
  result: readonly string[];
  key?: string;
  json?: boolean;
}

/** `tomaat verify`: exit code 0 if the receipt is signed and the files are those it names, else 1. */
export async function verify(file: string, flags: VerifyFlags): Promise<number> {
  const { receipt, thumbprint } = await verifyReceipt(await readFile(file, 'utf8'));
  const faults: string[] = [];
  if (flags.key !== undefined && flags.key !== thumbprint) {
    faults.push(`It was signed by ${thumbprint}, not by ${flags.key}.`);
  }
  const said: string[] = [];
  for (const path of flags.volume) await compareVolume(path, receipt, said, faults);
  for (const path of flags.result) {
    await mustBeFile(path);
    const digest = `sha256:${await hashFile(path)}`;
    const output = receipt.outputs.find((candidate) => candidate.digest === digest);
    if (output) said.push(`${basename(path)} is the output ${output.name}.`);
    else faults.push(`${basename(path)} is not one of its outputs: its SHA-256 is ${digest.slice(7)}.`);
  }
  if (flags.json) {
    console.log(JSON.stringify({ ok: faults.length === 0, thumbprint, receipt, faults }));
  } else {
    console.log([...linesOf(receipt, thumbprint), ...said, ...faults].map(plain).join('\n'));
    if (flags.key === undefined) {
      console.log(
        'The signature is valid. It is only as trustworthy as the key: compare the thumbprint with the line “Identity” that the server prints at startup (--key does this for you).',
      );
    }
  }
  return faults.length === 0 ? 0 : 1;
}

/** The files of a volume, unchanged or as sent without identifying text. */
async function compareVolume(
  path: string,
  receipt: Receipt,
  said: string[],
  faults: string[],
): Promise<void> {
  const known = new Map<string, string>();
  for (const { name, received, stored } of receipt.inputs) {
    known.set(received, name);
    known.set(stored, name);
  }
  const paths = await volumePaths(path);
  const asIs = await Promise.all(paths.map(async (part) => `sha256:${await hashFile(part)}`));
  if (asIs.every((digest) => known.has(digest))) {
    said.push(`${basename(path)} is the input ${known.get(asIs[0])}, unchanged.`);
    return;
  }
  for (const name of new Set(receipt.inputs.map((input) => input.name))) {
    await using sent = await anonymousInputs({ [name]: await volumeFiles(path) });
    const digests = await Promise.all(
      sent.volumes[name].map(async (file) => {
        const hash = createHash('sha256');
        for await (const chunk of file.stream() as AsyncIterable<Uint8Array>) hash.update(chunk);
        return `sha256:${hash.digest('hex')}`;
      }),
    );
    if (digests.every((digest) => known.get(digest) === name)) {
      said.push(`${basename(path)} is the input ${name}, as sent without identifying text.`);
      return;
    }
  }
  faults.push(`${basename(path)} is not one of its inputs: its SHA-256 is ${asIs[0].slice(7)}.`);
}

function linesOf(receipt: Receipt, thumbprint: string): string[] {
  const { service, server, retention } = receipt;
  const models = service.models.map(({ runtime, digest, device, verifiedOn }) => {
    const verified = verifiedOn?.includes(device?.split(':')[0] ?? '')
      ? ''
      : ', where its author has not verified it';
    return `${runtime} ${digest ?? '(no weights)'}${device ? `, computed on ${device}${verified}` : ''}`;
  });
  const rows: [string, string][] = [
    ['Signed by', thumbprint],
    ['Job', `${receipt.job} · ${receipt.state}${receipt.error ? ` (${receipt.error})` : ''}`],
    ['Service', `${service.id} ${service.version} · ${server.software} ${server.version}`],
    ['Model', models.join(', ')],
    ...(receipt.rewrites
      ? [['Computed', `in faster forms: ${receipt.rewrites.join(', ')}`] as [string, string]]
      : []),
    ['Manifest', service.manifest],
    ['Times', `accepted ${receipt.acceptedTime}, settled ${receipt.settledTime}`],
    ...receipt.inputs.flatMap(({ name, received, stored, sizeBytes }): [string, string][] => [
      ['Input', `${name} ${received} (as received)`],
      ...(stored === received
        ? []
        : [['', `${name} ${stored} (as stored, ${formatBytes(sizeBytes)})`] as [string, string]]),
    ]),
    ...Object.entries(receipt.parameters).map(([name, value]): [string, string] => [
      'Parameter',
      `${name} = ${typeof value === 'object' ? value.digest : String(value)}`,
    ]),
    ...receipt.outputs.map(({ name, format, digest, sizeBytes }): [string, string] => [
      'Output',
      `${name} ${digest} (${format}, ${formatBytes(sizeBytes)})`,
    ]),
    ['Inputs', retention.inputs],
    ['Results', `${retention.results}: ${retention.resultsDeletedTime}`],
    ['Note', receipt.notice],
  ];
  return rows.map(([name, text]) => `${name.padEnd(10)} ${text}`);
}
