import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDicomWeb, requireStored } from '@tomaat/client';
import { buildDicomObject, collectBytes, writeDicomFile } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ascii, bytesElement } from '../packages/core/src/dicom/build.ts';
import { tags } from '../packages/core/src/dicom/tags.ts';
import { asymmetricLabels, madeFiles, madeSource } from '../packages/core/test/dicom-source.ts';
import { readText, repository } from './documents.ts';
import { freePort, type Orthanc, startOrthanc } from './orthanc.ts';
import { findDcmtk, findOrthanc } from './programs.ts';

/* The configuration of deploy/orthanc with a real Orthanc: scanner → Orthanc → hook; result → Orthanc → PACS. */

const program = findOrthanc();
const isHere = Boolean(program && findDcmtk());

/** A configuration of Orthanc: JSON with lines of comments. */
const readConfiguration = (name: string): Record<string, unknown> =>
  JSON.parse(readText(`deploy/orthanc/${name}`).replaceAll(/^ *\/\/.*$/gm, ''));

const utf8 = new TextEncoder();
const made = {
  characterSets: ['ISO_IR 192'],
  more: [
    bytesElement(tags.seriesDescription, 'LO', utf8.encode('Schädel 胸部 ')),
    bytesElement(tags.studyDescription, 'LO', utf8.encode('MR Schädel ')),
    ascii(tags.bodyPartExamined, 'CS', 'HEAD'),
  ],
};

describe.skipIf(!isHere)('deploy/orthanc', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tomaat-door-'));
  const [sent, received] = [join(folder, 'sent'), join(folder, 'received')];
  const reports: { path?: string; authorization?: string; body: string }[] = [];
  const hook = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request.setEncoding('utf8')) body += chunk;
    reports.push({ path: request.url, authorization: request.headers.authorization, body });
    // The first time, the gateway is stopped just then; the second time, its disk is full.
    if (reports.length === 1) request.socket.destroy();
    else if (reports.length === 2) response.writeHead(507).end('{"code":"DISK_FULL"}');
    else response.end('{"taken":true}');
  });
  const password = 'a password';
  let orthanc: Orthanc;
  let door: number;
  let pacsPort: number;
  let pacs: ReturnType<typeof startPacs>;

  function startPacs(port: number) {
    const child = spawn(
      'storescp',
      ['-aet', 'PACS', '-od', received, '+xa', '--filename-extension', '.dcm', String(port)],
      {
        stdio: 'ignore',
      },
    );
    const closed = once(child, 'close');
    return {
      stop: async () => {
        child.kill('SIGKILL');
        await closed;
      },
    };
  }

  /** dcmsend of the images; its exit code. */
  const dcmsend = (from: string, to: string, port = door) =>
    spawnSync('dcmsend', ['-aet', from, '-aec', to, '+sd', '127.0.0.1', String(port), sent], {
      encoding: 'utf8',
    });

  const headers = { authorization: `Basic ${Buffer.from(`gateway:${password}`).toString('base64')}` };
  const archive = () => createDicomWeb({ url: orthanc.dicomWeb, headers });
  /** Asks Orthanc's own API. */
  async function ask<T>(path: string, body?: object): Promise<T> {
    const request = body ? { method: 'POST', body: JSON.stringify(body) } : {};
    return (await (await fetch(orthanc.url + path, { headers, ...request })).json()) as T;
  }

  beforeAll(async () => {
    for (const name of [sent, received]) mkdirSync(name);
    const files = await madeFiles(
      made,
      new Int16Array(13 * 7 * 5).map((_, i) => i % 977),
    );
    for (const [i, bytes] of files.entries()) writeFileSync(join(sent, `${i}.dcm`), bytes);
    await once(hook.listen(0, '127.0.0.1'), 'listening');
    [door, pacsPort] = [await freePort(), await freePort()];
    const { HttpPort, StorageDirectory, IndexDirectory, ...own } = readConfiguration('orthanc.json');
    expect({ HttpPort, StorageDirectory, IndexDirectory }).toEqual({
      HttpPort: 8042,
      StorageDirectory: '/var/lib/orthanc/db-v6',
      IndexDirectory: '/var/lib/orthanc/db-v6',
    });
    const { pacs: peer, scanner } = own.DicomModalities as Record<string, object>;
    const url = new URL((own.Tomaat as { Hook: string }).Hook);
    url.port = String((hook.address() as AddressInfo).port);
    orthanc = await startOrthanc(program!, {
      ...own,
      ...readConfiguration('credentials.json'),
      RegisteredUsers: { gateway: password },
      LuaScripts: [join(repository, 'deploy/orthanc/tomaat.lua')],
      StableAge: 1,
      DicomPort: door,
      DicomModalities: {
        pacs: { ...peer, Host: '127.0.0.1', Port: pacsPort },
        scanner: { ...scanner, Host: '127.0.0.1' },
        // As in the file: at another address.
        elsewhere: { ...scanner, AET: 'ELSEWHERE' },
      },
      Tomaat: { ...(own.Tomaat as object), Hook: url.href, FirstPauseSeconds: 1 },
    });
  }, 60_000);
  afterAll(async () => {
    await pacs?.stop();
    await orthanc?.[Symbol.asyncDispose]();
    hook.close();
    rmSync(folder, { recursive: true, force: true });
  }, 30_000);

  it('refuses callers that are not listed, other addresses, and another called title', async () => {
    expect(dcmsend('STRANGER', 'TOMAAT').status).not.toBe(0);
    expect(dcmsend('ELSEWHERE', 'TOMAAT').status).not.toBe(0);
    expect(dcmsend('SOMATOM', 'OTHER').status).not.toBe(0);
    expect(await archive().searchStudies()).toEqual([]);
    expect((await fetch(`${orthanc.url}/system`)).status).toBe(401);
  });

  it('reports a complete series without the patient, until the gateway takes it', async () => {
    const { status, stderr, stdout } = dcmsend('SOMATOM', 'TOMAAT');
    expect(status, stdout + stderr).toBe(0);
    await expect.poll(() => reports.length, { timeout: 15_000, interval: 50 }).toBe(1);
    // Reported again when the gateway searches, until it takes it.
    const searchUntil = () =>
      archive()
        .searchStudies()
        .then(() => reports.length);
    await expect.poll(searchUntil, { timeout: 15_000, interval: 200 }).toBe(3);
    expect([reports[1], reports[2]]).toEqual([reports[0], reports[0]]);
    const [{ path, authorization, body }] = reports;
    expect(path).toBe('/hooks/orthanc/door');
    expect(authorization).toBe('Bearer CHANGE-THIS-SECRET');
    expect(JSON.parse(body)).toEqual({
      study: '1.2.3',
      series: '1.2.3.0',
      modality: 'MR',
      bodyPart: 'HEAD',
      description: 'Schädel 胸部',
      studyDescription: 'MR Schädel',
      callingAet: 'SOMATOM',
      instances: 5,
    });
    expect(body).not.toMatch(/Doe|Jane|P-1/);
  }, 30_000);

  it('sends a stored result to the PACS, also one that was away', async () => {
    const { source, grid } = madeSource(made);
    const object = await buildDicomObject('seg.dcm', asymmetricLabels(grid), {
      source,
      maker: { id: 'an-app', name: 'An app', version: '1' },
      name: 'organs',
      description: 'Organs',
      readSlice: async () => new Int16Array(grid.size[0] * grid.size[1]),
    });
    const bytes = await collectBytes(writeDicomFile(object));
    // The PACS does not run yet.
    requireStored(await archive().store([new Blob([bytes])]));
    const states = async () => (await ask<{ State: string }[]>('/jobs?expand')).map(({ State }) => State);
    await expect.poll(states, { timeout: 15_000, interval: 100 }).toEqual(['Failure']);
    pacs = startPacs(pacsPort);
    // The gateway's searches are its clock.
    await expect
      .poll(
        async () => {
          await archive().searchSeries({ study: '1.2.3' });
          return readdirSync(received);
        },
        { timeout: 30_000, interval: 250 },
      )
      .toHaveLength(1);
    const [name] = readdirSync(received);
    const stored = readFileSync(join(received, name));
    // The pixels as they were built; Orthanc writes meta information of its own.
    const tail = Buffer.from(bytes).subarray(-200);
    expect(stored.subarray(-200)).toEqual(tail);
    expect(reports.filter(({ body }) => body.includes('"MR"'))).toHaveLength(3);
    // No image went back to the PACS.
    expect(stored.toString('latin1')).toContain('1.2.840.10008.5.1.4.1.1.66.4');
    const [instance] = await ask<string[]>('/tools/find', { Level: 'Instance', Query: { Modality: 'SEG' } });
    // What is not confirmed is sent again after a crash.
    await expect
      .poll(() => ask<{ SentToPacs: string }>(`/instances/${instance}/metadata?expand`), { timeout: 10_000 })
      .toMatchObject({ SentToPacs: 'yes', Origin: 'Plugins' });
  }, 60_000);
});
