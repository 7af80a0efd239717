import { createHash } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, verifyReceipt } from '@tomaat/client';
import { collectBytes, writeVolume } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodePlatform } from '../src/node-platform.ts';
import { tomaat } from './cli-fixture.ts';
import { phantom } from './phantom.ts';
import { readAudit } from './support/tested-database.ts';
import { startTestServer, type TestServer, temporaryFolder } from './test-server.ts';

let server: TestServer;
let work: string;
let volume: Buffer;
const sha256 = (bytes: Uint8Array) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

beforeAll(async () => {
  server = await startTestServer(['threshold']);
  work = await temporaryFolder();
  volume = Buffer.from(await collectBytes(writeVolume(phantom(), 'nii', nodePlatform)));
  volume.write('ROE^JANE', 148, 'latin1');
  await mkdir(join(work, 'in'));
  await writeFile(join(work, 'in', 'ROE_JANE.nii'), volume);
}, 120_000);
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(work, { recursive: true, force: true });
});

describe('a receipt', () => {
  it('comes with --receipt, and “tomaat verify” checks it and the files without the server', async () => {
    const input = join(work, 'in', 'ROE_JANE.nii');
    const receipt = join(work, 'receipt.jws');
    const out = join(work, 'out.nii');
    const made = await tomaat(['predict', server.url, '--volume', input, '-o', out, '--receipt', receipt]);
    expect(made.stderr).toContain('One text field in the headers was removed');
    expect(made.stderr + made.stdout).not.toContain('ROE^JANE');
    expect(made.code).toBe(0);
    const checked = await tomaat([
      'verify',
      receipt,
      '--volume',
      input,
      '--result',
      out,
      '--key',
      server.identity,
    ]);
    expect(checked.stdout).toContain('is the input volume, as sent without identifying text');
    expect(checked.stdout).toContain('is the output segmentation');
    expect(checked.stdout).toContain('research use only');
    expect(checked.code).toBe(0);
    await writeFile(join(work, 'other.nii'), Buffer.concat([volume, Buffer.from('x')]));
    const wrong = await tomaat(['verify', receipt, '--result', join(work, 'other.nii')]);
    expect(wrong.stdout).toContain('is not one of its outputs');
    expect(wrong.code).toBe(1);
    expect((await tomaat(['verify', receipt, '--key', 'another'])).code).toBe(1);
    const audit = await tomaat(['audit', 'verify', '--data', server.dataFolder, '--receipt', receipt]);
    expect(audit.stdout).toContain('The audit log is intact');
    expect(audit.code).toBe(0);
  });

  it('states input, output and model; 1,000 altered ones are refused', async () => {
    const client = createClient({ baseUrl: server.url });
    const job = await client.predict('threshold', {
      volumes: { volume: new Blob([volume as Uint8Array<ArrayBuffer>]) },
      keepText: true,
    });
    const done = await client.wait(job.id);
    const text = await client.receipt(job.id);
    expect(await client.receipt(job.id)).toBe(text);
    const { receipt, thumbprint } = await verifyReceipt(text);
    expect(thumbprint).toBe(server.identity);
    expect(receipt).toMatchObject({ job: job.id, state: 'succeeded', service: { id: 'threshold' } });
    expect(receipt.inputs).toEqual([
      { name: 'volume', sizeBytes: volume.length, received: sha256(volume), stored: sha256(volume) },
    ]);
    expect(receipt.outputs.map(({ digest }) => digest)).toEqual(done.outputs.map(({ digest }) => digest));
    let accepted = 0;
    for (let i = 0; i < 1000; i++) {
      const at = (i * 7919) % text.length;
      const bytes = Buffer.from(text);
      bytes[at] = text[at] === 'A' ? 66 : 65;
      if (i % 10 === 0) bytes[at] ^= 1 << (i % 7);
      if (bytes.toString('latin1') === text) bytes[at] ^= 2;
      await verifyReceipt(bytes.toString('latin1')).then(
        () => accepted++,
        (error: unknown) => expect(error).toMatchObject({ code: 'BAD_SIGNATURE' }),
      );
    }
    expect(accepted).toBe(0);
  });

  it('comes with the promise as a header, whose job is gone then', async () => {
    const { task, anatomy } = await createClient({ baseUrl: server.url }).service('threshold');
    const form = new FormData();
    form.set('volume', new Blob([volume as Uint8Array<ArrayBuffer>]), 'a.nii');
    const response = await fetch(`${server.url}/${task}/${anatomy}`, { method: 'POST', body: form });
    const result = new Uint8Array(await response.arrayBuffer());
    const { receipt } = await verifyReceipt(response.headers.get('tomaat-receipt') ?? '');
    expect(receipt.outputs.find(({ primary }) => primary)?.digest).toBe(sha256(result));
  });

  it('has both digests with --strip-inputs, and the bytes as they came are not kept', async () => {
    await using stripping = await startTestServer(['threshold'], { stripInputs: true });
    const client = createClient({ baseUrl: stripping.url });
    for (const resumableAboveBytes of [undefined, 1]) {
      const job = await client.predict('threshold', {
        volumes: { volume: new File([volume as Uint8Array<ArrayBuffer>], 'a.nii') },
        keepText: true,
        resumableAboveBytes,
      });
      expect((await client.wait(job.id)).state).toBe('succeeded');
      const { receipt } = await verifyReceipt(await client.receipt(job.id));
      const [input] = receipt.inputs;
      expect(input.received).toBe(sha256(volume));
      const blank = Buffer.from(volume).fill(0, 148, 228);
      expect(input.stored).toBe(sha256(blank));
    }
    const log = await readAudit(stripping.dataFolder);
    expect(log).toContain(sha256(volume));
    expect(log).not.toContain('ROE');
  });

  it('is given for a pair of files whose header names another file', async () => {
    const client = createClient({ baseUrl: server.url });
    const mha = Buffer.from(await collectBytes(writeVolume(phantom(), 'mha', nodePlatform, { level: 0 })));
    const end = mha.indexOf('ElementDataFile = LOCAL\n');
    const header = `${mha.toString('latin1', 0, end)}ElementDataFile = ROE.raw\n`;
    const raw = mha.subarray(end + 24);
    for (const keepText of [false, true]) {
      const job = await client.predict('threshold', {
        volumes: { volume: [new File([header], 'ROE.mhd'), new File([raw], 'ROE.raw')] },
        keepText,
      });
      expect(await client.wait(job.id)).toMatchObject({ state: 'succeeded' });
    }
  });
});
