import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { TomaatError } from '@tomaat/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dicomFile, sliceElements } from '../../../core/test/dicom-files.ts';
import { openDicomWebDestination } from './destinations/dicomweb.ts';
import { mayPass } from './faults.ts';
import { createHealthBoard, watchedDestination } from './peer-health.ts';
import type { Destination } from './series.ts';

describe('watchedDestination() of an archive', () => {
  let answer: (response: ServerResponse) => void;
  let archive: Destination;
  const server = createServer((request, response) => {
    request.resume().on('end', () => answer(response));
  });
  beforeAll(async () => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/rs`;
    const direct = openDicomWebDestination('pacs', { url }, async () => ({ fetch }));
    archive = watchedDestination(direct, createHealthBoard());
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  const { signal } = new AbortController();
  const faultOf = async (work: Promise<void>): Promise<TomaatError | undefined> => {
    const fault = await work.then(
      () => undefined,
      (error: unknown) => error,
    );
    if (fault !== undefined) expect(fault).toBeInstanceOf(TomaatError);
    return fault as TomaatError | undefined;
  };
  const json = (status: number, body: unknown) => (response: ServerResponse) =>
    response.writeHead(status, { 'content-type': 'application/dicom+json' }).end(JSON.stringify(body));
  const failing = (reason: number) => ({
    '00081198': {
      vr: 'SQ',
      Value: [
        {
          '00081150': { vr: 'UI', Value: ['1.2.840.10008.5.1.4.1.1.4'] },
          '00081155': { vr: 'UI', Value: ['1.2.3.9.1'] },
          '00081197': { vr: 'US', Value: [reason] },
        },
      ],
    },
  });
  const store = () => faultOf(archive.store([dicomFile(sliceElements({}))], signal));

  it.each([401, 403, 404, 405, 502, 507])(
    'HTTP %i at a store concerns all series, and passes',
    async (status) => {
      answer = json(status, {});
      expect(mayPass(await store())).toBe(true);
    },
  );

  it.each([
    [0x0122, 'which it does not take', false],
    [0xa900, 'which does not fit its kind', false],
    [0xa700, 'for which it has no room', true],
  ])('an object refused with %i, %s: passes is %s', async (reason, _text, passes) => {
    answer = json(409, failing(reason));
    expect(mayPass(await store())).toBe(passes);
  });

  it.each([
    [200, false],
    [403, false],
    [404, false],
    [501, false],
    [502, true],
    [503, true],
    [504, true],
  ])('HTTP %i at a search: is away is %s', async (status, isAway) => {
    answer = json(status, status === 200 ? [] : {});
    expect((await faultOf(archive.ask!(signal))) !== undefined).toBe(isAway);
  });
});
