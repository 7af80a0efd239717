import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { TomaatError } from '@tomaat/core';
import { afterEach, describe, expect, it } from 'vitest';
import { readFileMeta } from './dicom-file-meta.ts';
import { createDicomWeb } from './dicomweb.ts';
import type { DicomWebOptions } from './dicomweb-http.ts';
import { requireStored, storeReason } from './dicomweb-store.ts';
import { dicomFile } from './fixtures.ts';
import { parseRelatedType, readRelated } from './multipart-related.ts';

interface Received {
  path?: string;
  headers: IncomingMessage['headers'];
  bodyBytes: number;
  /** By what the files in the body state. */
  uids: string[];
}
interface Answer {
  status?: number;
  json?: unknown;
  text?: string;
  contentType?: string;
}

const opened: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of opened.splice(0)) await close();
});

/** A service for STOW that answers as the function says. */
async function storing(answer: (received: Received) => Answer, more: Partial<DicomWebOptions> = {}) {
  const received: Received[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const { boundary } = parseRelatedType(request.headers['content-type']!)!;
    const uids: string[] = [];
    const source = (async function* () {
      yield new Uint8Array(body);
    })();
    for await (const { bytes } of readRelated(source, boundary, { from: 'test', maxPartBytes: 2 ** 24 }))
      uids.push(readFileMeta(bytes)!.sopInstanceUid!);
    const { url: path, headers } = request;
    received.push({ path, headers, bodyBytes: body.length, uids });
    const { status = 200, json, text, contentType = 'application/dicom+json' } = answer(received.at(-1)!);
    response.writeHead(status, contentType ? { 'content-type': contentType } : {});
    response.end(text ?? JSON.stringify(json));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  opened.push(
    () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/dicom-web`;
  return { received, web: createDicomWeb({ url, retries: 0, ...more }) };
}

const item = (uid: string, more: Record<string, unknown> = {}) => ({
  '00081150': { vr: 'UI', Value: ['1.2.840.10008.5.1.4.1.1.4'] },
  '00081155': { vr: 'UI', Value: [uid] },
  ...more,
});
const reason = (code: number) => ({ '00081197': { vr: 'US', Value: [code] } });
const referenced = (...items: unknown[]) => ({ '00081199': { vr: 'SQ', Value: items } });
const failedItems = (...items: unknown[]) => ({ '00081198': { vr: 'SQ', Value: items } });
const allStored = ({ uids }: Received) => ({ json: referenced(...uids.map((uid) => item(uid))) });
const uid = (number: number) => `1.2.3.${number}`;
const three = [1, 2, 3].map((number) => dicomFile(uid(number)));

describe('store()', () => {
  it('sends files as parts with Content-Length, and reports each as stored', async () => {
    const { web, received } = await storing(({ uids }) => ({
      json: {
        ...referenced(
          ...uids.map((each) =>
            item(each, {
              '00081190': { vr: 'UR', Value: [`http://pacs.example/${each}`] },
              ...(each === uid(2) && {
                '00081196': { vr: 'US', Value: [0xb000] },
              }),
            }),
          ),
        ),
      },
    }));
    const progress: unknown[] = [];
    const [a, b, c] = three;
    const report = await web.store([a, { name: 'b.dcm', bytes: b }, new File([c], 'c.dcm')], {
      study: '1.2',
      onProgress: (each) => progress.push(each),
    });
    expect(received).toHaveLength(1);
    expect(received[0]).toMatchObject({
      path: '/dicom-web/studies/1.2',
      uids: [uid(1), uid(2), uid(3)],
      headers: {
        accept: 'application/dicom+json',
        'content-length': String(received[0].bodyBytes),
        'content-type': expect.stringMatching(/^multipart\/related; type="application\/dicom"; boundary=/),
      },
    });
    expect(received[0].headers).not.toHaveProperty('transfer-encoding');
    expect(report).toEqual({
      stored: [1, 2, 3].map((number) => ({
        index: number - 1,
        sopInstanceUid: uid(number),
        retrieveUrl: `http://pacs.example/${uid(number)}`,
        warning:
          number === 2
            ? { code: 0xb000, meaning: 'B000: the server changed values of attributes' }
            : undefined,
      })),
      failed: [],
      otherFailures: [],
    });
    requireStored(report);
    const totalBytes = a.length + b.length + c.length;
    expect(progress).toEqual([{ instances: 3, sentBytes: totalBytes, totalBytes }]);
  });

  it('sends several requests, each up to batchBytes, and a larger file alone', async () => {
    const files = [1, 2, 3, 4, 5].map((number) =>
      dicomFile(uid(number), { size: number === 3 ? 5000 : 100 }),
    );
    const { web, received } = await storing(allStored, { batchBytes: 2 * files[0].length });
    const progress: number[] = [];
    const report = await web.store(files, { onProgress: ({ instances }) => progress.push(instances) });
    expect(received.map(({ uids }) => uids)).toEqual([[uid(1), uid(2)], [uid(3)], [uid(4), uid(5)]]);
    expect(report.stored.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4]);
    expect(progress).toEqual([2, 3, 5]);
  });

  it('reads a source when its turn comes', async () => {
    const file = dicomFile(uid(1), { size: 9000 });
    let opens = 0;
    const source = {
      name: 'a.dcm',
      sizeBytes: file.length,
      async *stream() {
        opens++;
        for (let at = 0; at < file.length; at += 100) yield file.slice(at, at + 100);
      },
    };
    const { web, received } = await storing(allStored);
    requireStored(await web.store([source]));
    expect(received[0].uids).toEqual([uid(1)]);
    // For its UID, and to send it.
    expect(opens).toBe(2);
  });

  it.each([
    [202, { ...referenced(item(uid(1)), item(uid(3))), ...failedItems(item(uid(2), reason(0x0122))) }],
    [409, [{ ...referenced(item(uid(1)), item(uid(3))), ...failedItems(item(uid(2), reason(0x0122))) }]],
    [400, { ...referenced(item(uid(1)), item(uid(3))), ...failedItems(item(uid(2), reason(0x0122))) }],
  ])('HTTP %i reports each instance', async (status, json) => {
    const { web } = await storing(() => ({ status, json }));
    const { stored, failed } = await web.store(three);
    expect(stored.map(({ sopInstanceUid }) => sopInstanceUid)).toEqual([uid(1), uid(3)]);
    expect(failed).toEqual([
      {
        index: 1,
        sopInstanceUid: uid(2),
        reason: { code: 0x0122, meaning: '0122: the server does not store this kind of object (SOP class)' },
        message: expect.stringContaining(
          `(HTTP ${status}) did not store an instance, 0122: the server does not store`,
        ),
      },
    ]);
  });

  it('reports unmentioned instances as not stored, with 400 and with 200', async () => {
    for (const status of [400, 200]) {
      const { web } = await storing(() => ({
        status,
        contentType: '',
        json: { ...referenced(item(uid(3))), '00081198': { vr: 'SQ' } },
      }));
      const { stored, failed } = await web.store(three);
      expect(stored).toMatchObject([{ index: 2 }]);
      expect(failed).toMatchObject([{ index: 0 }, { index: 1 }]);
      expect(failed[0].reason).toBeUndefined();
      expect(failed[0].message).toContain('did not confirm that it stored an instance. Check');
    }
  });

  it('names failures that the server gives without an instance', async () => {
    const { web } = await storing(() => ({
      status: 202,
      json: { ...referenced(item(uid(1)), item(uid(2))), '0008119A': { vr: 'SQ', Value: [reason(0xc000)] } },
    }));
    const { failed, otherFailures } = await web.store(three);
    expect(otherFailures).toEqual([{ code: 0xc000, meaning: 'C000: the server cannot understand the file' }]);
    expect(failed).toMatchObject([
      { index: 2, message: expect.stringContaining('(C000: the server cannot') },
    ]);
  });

  it('an instance that is in both lists counts as failed', async () => {
    const { web } = await storing(() => ({
      json: { ...referenced(item(uid(1))), ...failedItems(item(uid(1))) },
    }));
    const { stored, failed } = await web.store(three.slice(0, 1));
    expect(stored).toEqual([]);
    expect(failed[0].message).toContain('did not store an instance and gives no reason.');
  });

  it.each(['', '<html></html>', '[]', 'null', '"ok"'])(
    'HTTP 200 with %j means that nothing is known to be stored',
    async (text) => {
      const { web } = await storing(() => ({ text, contentType: 'text/html' }));
      const { stored, failed } = await web.store(three);
      expect(stored).toEqual([]);
      expect(failed).toHaveLength(3);
    },
  );

  it.each([
    [400, { Message: 'Bad request' }, 'BAD_REQUEST'],
    [409, {}, 'BAD_REQUEST'],
    [500, { Message: 'broken' }, 'INTERNAL'],
  ])('HTTP %i that reports no instance is an error', async (status, json, code) => {
    const { web } = await storing(() => ({ status, json, contentType: 'application/json' }));
    await expect(web.store(three)).rejects.toMatchObject({
      code,
      detail: { httpStatus: status, answer: JSON.stringify(json) },
    });
  });

  it('halves requests that are too large, down to a single file', async () => {
    const { web, received } = await storing((request) =>
      request.uids.length > 1 ? { status: 413, text: '' } : allStored(request),
    );
    expect((await web.store(three)).stored.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(received.map(({ uids }) => uids.length)).toEqual([3, 1, 2, 1, 1]);
    const never = await storing(() => ({ status: 413, text: '' }));
    await expect(never.web.store(three)).rejects.toMatchObject({ code: 'UPLOAD_TOO_LARGE' });
  });

  it('an error on the way has what was stored before it', async () => {
    const { web } = await storing(
      (request) => (request.uids.includes(uid(2)) ? { status: 401, text: '' } : allStored(request)),
      { batchBytes: 1 },
    );
    await expect(web.store(three)).rejects.toMatchObject({
      code: 'UNAUTHORIZED',
      detail: { httpStatus: 401, storedSopInstanceUids: [uid(1)] },
    });
  });

  it('refuses non-DICOM files and duplicate UIDs before sending anything', async () => {
    const { web, received } = await storing(allStored);
    const noUid = dicomFile('not a uid');
    for (const bad of [new Uint8Array(10), new Uint8Array(500), noUid, dicomFile('1.2').slice(0, 150)]) {
      await expect(web.store([three[0], bad])).rejects.toMatchObject({
        code: 'BAD_INPUT',
        message: expect.stringMatching(/^Instance 2 is not a DICOM file that can be stored/),
        detail: { index: 1 },
      });
    }
    await expect(web.store([three[0], three[1], three[0]])).rejects.toMatchObject({
      code: 'BAD_INPUT',
      message: expect.stringMatching(/^Instances 1 and 3 have the same SOP Instance UID/),
    });
    await expect(web.store(['a.dcm' as unknown as Uint8Array])).rejects.toMatchObject({ code: 'BAD_INPUT' });
    expect(received).toEqual([]);
    expect(await web.store([])).toEqual({ stored: [], failed: [], otherFailures: [] });
  });

  it('an aborted signal rejects with its reason', async () => {
    const { web } = await storing(allStored);
    const reason = new Error('enough');
    await expect(web.store(three, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

describe('requireStored()', () => {
  it('throws with the reasons, each once', () => {
    const failed = [0, 1, 2].map((index) => ({ index, sopInstanceUid: uid(index), message: 'It is full.' }));
    const report = { stored: [{ index: 3, sopInstanceUid: uid(3) }], failed, otherFailures: [] };
    expect(() => requireStored(report)).toThrow(
      expect.objectContaining({
        code: 'UPSTREAM',
        message: '3 of 4 instances are not stored. It is full.',
        detail: { failed },
      }),
    );
    expect(() => requireStored({ ...report, failed: [] })).not.toThrow(TomaatError);
  });
});

describe('storeReason()', () => {
  it.each([
    [0x0110, /^0110: .*failed to process/],
    [0x0122, /^0122: .*SOP class/],
    [0x0124, /^0124: .*may not store/],
    [0x0210, /^0210: .*twice/],
    [0x0212, /^0212: .*argument/],
    [0xa700, /^A700: .*no resources/],
    [0xa7ff, /^A7FF: .*no resources/],
    [0xa900, /^A900: .*do not match/],
    [0xc000, /^C000: .*cannot understand/],
    [0xcfff, /^CFFF: .*cannot understand/],
    [0xc122, /^C122: .*transfer syntax/],
    [0xb006, /^B006: .*dropped/],
    [0x4242, /^4242: .*not in the standard/],
  ])('%i', (code, meaning) => {
    expect(storeReason(code)).toEqual({ code, meaning: expect.stringMatching(meaning) });
  });
});

describe('readFileMeta()', () => {
  it('reads the UIDs, with and without their padding', () => {
    for (const each of ['1.2', '1.23', '1'.repeat(64)]) {
      expect(readFileMeta(dicomFile(each, { transferSyntaxUid: '1.2.840.10008.1.2.5' }))).toEqual({
        sopClassUid: '1.2.840.10008.5.1.4.1.1.4',
        sopInstanceUid: each,
        transferSyntaxUid: '1.2.840.10008.1.2.5',
      });
    }
  });

  it('leaves out truncated elements and invalid UIDs', () => {
    const file = dicomFile('1.2.3');
    expect(readFileMeta(file.slice(0, 131))).toBeUndefined();
    for (let length = 132; length <= file.length; length++) {
      const { sopInstanceUid } = readFileMeta(file.slice(0, length))!;
      expect([undefined, '1.2.3']).toContain(sopInstanceUid);
    }
    expect(readFileMeta(dicomFile('abc'))).not.toHaveProperty('sopInstanceUid');
    expect(readFileMeta(new Uint8Array(0))).toBeUndefined();
  });
});
