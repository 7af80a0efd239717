import {
  type Announcement,
  announcementType,
  type Entry,
  entrySchema,
  problemSchema,
  toSlug,
} from '@tomaat/client';
import { sql } from 'kysely';
import { afterEach, describe, expect, it } from 'vitest';
import { createKey, findKey, listKeys, renewProgramKey, revokeKey } from '../src/access/keys.ts';
import {
  announce,
  announcementOf,
  createCleanup,
  identityOf,
  idOf,
  openFolder,
  openTestRegistry,
  payloadOf,
  putSigned,
  type TestRegistry,
} from './registry-helpers.ts';
import { databaseBytes } from './support/tested-database.ts';

/** How long an entry lives (of our API, of v1), and how long it is shown after that: the promise, not the source. */
const [apiLifeMs, v1LifeMs, keptMs] = [90_000, 3_600_000, 86_400_000];

const cleanup = createCleanup();
afterEach(() => cleanup.run());

const v1 = (apiKey: string, change: Record<string, unknown> = {}) => ({
  api_key: apiKey,
  prediction_url: 'https://lab.example:9000/predict',
  interface_url: 'https://lab.example:9000/interface',
  name: 'Old net',
  modality: 'MRI',
  anatomy: 'Prostate gland',
  task: 'Segmentation',
  description: 'From 2018',
  ...change,
});

async function postV1(registry: TestRegistry, body: unknown, headers: Record<string, string> = {}) {
  const payload = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  const answer = await registry.app.inject({ method: 'POST', url: '/announce', payload, headers });
  expect(answer.statusCode).toBe(200);
  return answer.json() as { status: number; error: string };
}

async function discover(registry: TestRegistry) {
  return (await registry.app.inject('/discover')).json() as Record<string, unknown>[];
}

async function search(registry: TestRegistry, query = '') {
  return ((await registry.app.inject(`/api/services${query}`)).json() as { services: Entry[] }).services;
}

describe('POST /announce (v1)', () => {
  it('takes JSON with a missing, wrong or invalid content type', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const types: Record<string, string>[] = [
      {},
      { 'content-type': 'application/x-www-form-urlencoded' },
      { 'content-type': 'json' },
      { 'content-type': 'multipart/form-data' },
    ];
    for (const headers of types)
      expect(await postV1(registry, v1(key), headers)).toEqual({ status: 0, error: '' });
    expect(await discover(registry)).toHaveLength(1);
  });

  it('counts and names every problem', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    expect(await postV1(registry, {})).toMatchObject({ status: 8 });
    const { name: _name, task: _task, ...rest } = v1('tmt_unknown', { modality: 7, anatomy: '  ' });
    const { status, error } = await postV1(registry, rest);
    expect(status).toBe(5);
    for (const part of [
      'name is missing',
      'task is missing',
      'modality is not a string',
      'anatomy is empty',
      'api_key is unknown',
    ]) {
      expect(error).toContain(part);
    }
    expect(await postV1(registry, v1(key, { prediction_url: 'javascript:alert(1)' }))).toMatchObject({
      status: 1,
    });
    expect(await postV1(registry, v1(key, { interface_url: 'https://a:b@lab.example/' }))).toMatchObject({
      status: 1,
    });
    expect(await postV1(registry, v1(key, { description: '' }))).toMatchObject({ status: 0 });
    for (const body of ['', 'no json', '[]', 'null', '"text"', `{"name":"${'x'.repeat(70_000)}"}`]) {
      expect(await postV1(registry, body)).toMatchObject({ status: 1 });
    }
  });

  it.each([
    'Lung\u0000net',
    'Lung\u001b[2Jnet',
    'Lung\nSaved to /etc/passwd',
    'Lung \u202etxt.exe',
    'Lung\u2066net',
    'Lung\u200bnet',
    'Lung\u2028net',
    'Lung\u009b31mnet',
  ])('refuses names with invisible characters, by v1 or signed: %j', async (name) => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    for (const field of ['name', 'modality', 'anatomy', 'task']) {
      const { status, error } = await postV1(registry, v1(key, { [field]: name }));
      expect({ status, error }).toMatchObject({
        status: 1,
        error: expect.stringContaining(`${field} contains`),
      });
    }
    for (const field of ['name', 'modality', 'serviceId', 'version', 'description']) {
      const text = field === 'description' ? name.replaceAll('\n', '\u202e') : name;
      const change = { ...announcementOf('https://lab.example'), [field]: text };
      const put = await announce(registry, key, 'a', change);
      expect(put.statusCode, `${field} ${put.payload}`).toBe(422);
      expect(put.payload).not.toContain('\u202e');
    }
    expect(await discover(registry)).toEqual([]);
    const described = v1(key, { description: 'Two lines,\n\tone indented', name: 'می\u200cخواهم' });
    expect(await postV1(registry, described)).toMatchObject({ status: 0 });
  });

  it('keeps addresses as they are understood', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const given = {
      prediction_url: ' https://LAB.example:443/\r\npre\tdict\n',
      interface_url: 'https://lab.example/a/../inter\nface',
    };
    expect(await postV1(registry, v1(key, given))).toMatchObject({ status: 0 });
    expect(
      await postV1(registry, v1(key, { ...given, prediction_url: 'https://lab.example/predict' })),
    ).toMatchObject({
      status: 0,
    });
    const list = await discover(registry);
    expect(list).toHaveLength(1);
    expect(list[0]).toMatchObject({
      prediction_url: 'https://lab.example/predict',
      interface_url: 'https://lab.example/interface',
    });
    const signed = await announce(
      registry,
      key,
      'a',
      announcementOf('https://lab.example', { interfaceUrl: 'https://lab.example/\r\ninterface' }),
    );
    expect(signed.statusCode, signed.payload).toBe(200);
    expect(signed.json().interfaceUrl).toBe('https://lab.example/interface');
    const turned = announcementOf('https://lab.example', {
      interfaceUrl: 'https://lab.example/\u202einterface',
    });
    expect((await announce(registry, key, 'a', turned)).statusCode).toBe(422);
  });

  it('refuses a key without the scope, a revoked and an expired one', async () => {
    const registry = await openTestRegistry(cleanup);
    expect(await postV1(registry, v1(await registry.key('p', ['predict'])))).toMatchObject({ status: 1 });
    expect(await postV1(registry, v1(await registry.key('a', ['admin'])))).toMatchObject({ status: 0 });
    const { db } = registry.entries;
    const revoked = await createKey(db, { label: 'r', scopes: ['announce'] }, registry.clock.ms);
    await revokeKey(db, revoked.id, registry.clock.ms);
    expect(await postV1(registry, v1(revoked.key))).toMatchObject({ status: 1 });
    const expiresTime = new Date(registry.clock.ms + 1000);
    const short = await createKey(db, { label: 'e', scopes: ['announce'], expiresTime }, registry.clock.ms);
    expect(await postV1(registry, v1(short.key))).toMatchObject({ status: 0 });
    registry.clock.ms += 1000;
    expect(await postV1(registry, v1(short.key))).toMatchObject({ status: 1 });
  });

  it('separates a key’s services, and replaces an address, keeping its SID', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    await postV1(registry, v1(key));
    const [first] = await discover(registry);
    await postV1(
      registry,
      v1(key, { prediction_url: 'https://lab.example:9001/predict', name: 'Second net' }),
    );
    await postV1(registry, v1(key, { description: 'Changed' }));
    const list = await discover(registry);
    expect(list.map((entry) => [entry.name, entry.description])).toEqual([
      ['Old net', 'Changed'],
      ['Second net', 'From 2018'],
    ]);
    expect(list[0].SID).toBe(first.SID);
  });

  it('moves the only entry of a key when the service changes its address', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    await postV1(registry, v1(key));
    const [before] = await discover(registry);
    await postV1(registry, v1(key, { prediction_url: 'https://lab.example:9500/predict' }));
    const list = await discover(registry);
    expect(list).toHaveLength(1);
    expect(list[0]).toMatchObject({ prediction_url: 'https://lab.example:9500/predict', SID: before.SID });
    // Not the entry of another key, though it is the only one of that key.
    await postV1(
      registry,
      v1(await registry.key('other'), { prediction_url: 'https://other.example/predict' }),
    );
    expect(await discover(registry)).toHaveLength(2);
  });
});

describe('GET /discover (v1)', () => {
  it('gives the announced keys, SID, creation_time and an empty api_key, to any origin', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const announced = v1(key);
    await postV1(registry, announced);
    const answer = await registry.app.inject('/discover');
    expect(answer.headers).toMatchObject({
      'access-control-allow-origin': '*',
      'access-control-allow-headers': '*',
      'access-control-max-age': '2520',
      'content-length': String(Buffer.byteLength(answer.payload)),
    });
    const [entry] = answer.json() as Record<string, unknown>[];
    expect(entry).toEqual({
      ...announced,
      api_key: '',
      SID: expect.stringMatching(/^[a-z2-7]{8}$/),
      creation_time: registry.clock.ms / 1000,
    });
    expect(Number.isInteger(entry.creation_time)).toBe(false);
    expect(key).not.toContain(entry.SID as string);
    expect(
      (await registry.app.inject({ method: 'OPTIONS', url: '/announce' })).headers[
        'access-control-allow-origin'
      ],
    ).toBe('*');
  });

  it('groups as the client does: entries of both faces, v1 names as announced', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    await postV1(registry, v1(key));
    await announce(registry, key, 'a', announcementOf('http://127.0.0.1:9000'));
    await announce(
      registry,
      key,
      'b',
      announcementOf('http://127.0.0.1:9000', { serviceId: 'lung', anatomy: 'lung', modality: 'CT' }),
    );
    const groups = new Map<string, string[]>();
    for (const { modality, anatomy, task, name } of await discover(registry)) {
      const path = `${modality}/${anatomy}/${task}`;
      groups.set(path, [...(groups.get(path) ?? []), String(name)]);
    }
    expect([...groups.keys()].sort()).toEqual([
      'CT/lung/segmentation',
      'MRI/Prostate gland/Segmentation',
      'MRI/prostate/segmentation',
    ]);
    const api = (await discover(registry)).find((entry) => entry.modality === 'CT');
    expect(api?.prediction_url).toBe('http://127.0.0.1:9000/services/lung/predict');
  });

  it('lists an entry until its hour is over, to the millisecond', async () => {
    const registry = await openTestRegistry(cleanup);
    await postV1(registry, v1(await registry.key()));
    registry.clock.ms += v1LifeMs - 1;
    expect(await discover(registry)).toHaveLength(1);
    registry.clock.ms += 1;
    expect(await discover(registry)).toHaveLength(0);
  });
});

describe('PUT and DELETE /api/announcements/{id}', () => {
  it('announces, renews with the same SID, withdraws', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const answer = await announce(
      registry,
      key,
      'lab:prostate',
      announcementOf('http://127.0.0.1:9000', { version: '1.2', default: true, volumes: 1 }),
    );
    expect(answer.statusCode).toBe(200);
    const entry = entrySchema.parse(answer.json());
    expect(entry).toMatchObject({
      face: 'api',
      live: true,
      serverUrl: 'http://127.0.0.1:9000',
      version: '1.2',
      default: true,
      volumes: 1,
    });
    expect(Date.parse(entry.expiresTime) - Date.parse(entry.announcedTime)).toBe(apiLifeMs);
    registry.clock.ms += 60_000;
    const again = entrySchema.parse(
      (await announce(registry, key, 'lab:prostate', announcementOf('http://127.0.0.1:9111'))).json(),
    );
    expect(again).toMatchObject({ sid: entry.sid, serverUrl: 'http://127.0.0.1:9111', default: false });
    expect(again.version).toBeUndefined();
    expect(await search(registry)).toHaveLength(1);
    const withdraw = {
      method: 'DELETE',
      url: `/api/announcements/${await idOf('lab:prostate')}`,
      headers: { authorization: `Bearer ${key}` },
    } as const;
    expect((await registry.app.inject(withdraw)).statusCode).toBe(204);
    expect(await search(registry)).toEqual([]);
    expect((await registry.app.inject(withdraw)).statusCode).toBe(404);
  });

  it('treats equal key and prediction address as one entry under any id', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const first = entrySchema.parse(
      (await announce(registry, key, 'one', announcementOf('http://127.0.0.1:9000'))).json(),
    );
    const second = entrySchema.parse(
      (await announce(registry, key, 'two', announcementOf('http://127.0.0.1:9000'))).json(),
    );
    expect(second.sid).toBe(first.sid);
    await announce(registry, key, 'three', announcementOf('http://127.0.0.1:9001'));
    expect(await search(registry)).toHaveLength(2);
    // 'three' moves to the address of 'two': one of the two pairs is gone.
    await announce(registry, key, 'three', announcementOf('http://127.0.0.1:9000'));
    expect(await search(registry)).toHaveLength(1);
  });

  it('stays relayable and keeps its expiry when v1 announces it too', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const { predictionUrl } = announcementOf('http://127.0.0.1:9000');
    await announce(registry, key, 'one', announcementOf('http://127.0.0.1:9000'));
    await postV1(
      registry,
      v1(key, { prediction_url: predictionUrl, anatomy: 'prostate', task: 'segmentation' }),
    );
    expect(await search(registry)).toMatchObject([
      { face: 'api', serverUrl: 'http://127.0.0.1:9000', name: 'Prostate net', signed: expect.any(String) },
    ]);
    registry.clock.ms += apiLifeMs;
    expect(await discover(registry)).toHaveLength(0);
    await postV1(registry, v1(key, { prediction_url: predictionUrl }));
    expect(await search(registry)).toMatchObject([{ face: 'v1', live: true }]);
  });

  it('requires the scope, and an id that is free or that key’s', async () => {
    const registry = await openTestRegistry(cleanup);
    const body = announcementOf('http://127.0.0.1:9000');
    const none = await registry.app.inject({
      method: 'PUT',
      url: '/api/announcements/x',
      payload: JSON.stringify(body),
    });
    expect(none.statusCode).toBe(401);
    expect(none.headers['www-authenticate']).toContain('Bearer');
    expect(problemSchema.parse(none.json()).code).toBe('UNAUTHORIZED');
    expect((await announce(registry, 'tmt_aaaaaaaaaa_bbb', 'x', body)).statusCode).toBe(401);
    expect((await announce(registry, await registry.key('p', ['predict']), 'x', body)).statusCode).toBe(403);
    const owner = await registry.key('owner');
    const other = await registry.key('other');
    const accepted = await announce(registry, owner, 'x', body);
    expect(accepted.statusCode).toBe(200);
    expect(accepted.headers['www-authenticate']).toBeUndefined();
    expect((await announce(registry, other, 'x', announcementOf('http://127.0.0.1:9999'))).statusCode).toBe(
      403,
    );
    const headers = { authorization: `Bearer ${other}` };
    expect(
      (await registry.app.inject({ method: 'DELETE', url: `/api/announcements/${await idOf('x')}`, headers }))
        .statusCode,
    ).toBe(403);
    expect(await search(registry)).toMatchObject([{ serverUrl: 'http://127.0.0.1:9000' }]);
  });

  it('drops a revoked key’s entries at once, and its ids', async () => {
    const registry = await openTestRegistry(cleanup);
    const { db } = registry.entries;
    const lost = await createKey(db, { label: 'lost', scopes: ['announce'] }, registry.clock.ms);
    await announce(registry, lost.key, 'x', announcementOf('http://127.0.0.1:9000'));
    await revokeKey(db, lost.id, registry.clock.ms);
    expect(await discover(registry)).toEqual([]);
    expect(await search(registry, '?live=true')).toEqual([]);
    expect(
      (await announce(registry, await registry.key('new'), 'x', announcementOf('http://127.0.0.1:9000')))
        .statusCode,
    ).toBe(200);
    expect(await search(registry)).toHaveLength(1);
  });

  it('names every fault of an announcement', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const wrong = {
      ...announcementOf('http://127.0.0.1:9000'),
      anatomy: 'Whole Brain',
      name: '',
      surplus: 1,
    };
    const problem = problemSchema.parse((await announce(registry, key, 'x', wrong as Announcement)).json());
    expect(problem).toMatchObject({ status: 422, code: 'BAD_INPUT' });
    for (const word of ['anatomy', 'name', 'surplus']) expect(problem.detail).toContain(word);
    const bad: [string, unknown][] = [
      ['x', { ...announcementOf('http://127.0.0.1:9000'), serverUrl: 'http://user:secret@127.0.0.1:9000' }],
      ['x', { ...announcementOf('http://127.0.0.1:9000'), serverUrl: 'file:///etc/passwd' }],
      ['x', { ...announcementOf('http://127.0.0.1:9000'), serverUrl: 'http://127.0.0.1:9000/?a=b' }],
    ];
    for (const [id, body] of bad)
      expect((await announce(registry, key, id, body as Announcement)).statusCode).toBe(422);
    const good = payloadOf(announcementOf('http://127.0.0.1:9000'), await identityOf('x'), registry.clock.ms);
    const signed = await (await identityOf('x')).sign(announcementType, good);
    for (const [id, text] of [
      ['../x', signed],
      ['x', signed],
      [good.id, null],
      [good.id, ''],
      [good.id, 'x'.repeat(100_000)],
    ] as const) {
      expect((await putSigned(registry, key, id, text)).statusCode, id).toBeOneOf([413, 422]);
    }
    expect(await search(registry)).toEqual([]);
  });

  it('limits the entries of all keys together', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const first = await announce(registry, key, 'server', announcementOf('http://127.0.0.1:9000'));
    expect(first.statusCode).toBe(200);
    // Those of 25 other keys; one is left.
    const { db } = registry.entries;
    const [{ name }] = (
      await sql<{ name: string }>`SELECT group_concat(name) AS name FROM pragma_table_info('entry')
        WHERE name NOT IN ('sid', 'id', 'key_id', 'prediction_url')`.execute(db)
    ).rows;
    await sql`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 19998)
      INSERT INTO entry (sid, id, key_id, prediction_url, ${sql.raw(name)})
      SELECT 's' || i, NULL, 'key' || (i % 25), 'http://127.0.0.1/' || i, ${sql.raw(name)} FROM n, entry`.execute(
      db,
    );
    const add = async (label: string) =>
      announce(registry, await registry.key(label), label, announcementOf('http://127.0.0.1:9000'));
    expect((await add('fits')).statusCode).toBe(200);
    const full = await add('one-more');
    expect(problemSchema.parse(full.json())).toMatchObject({ status: 503, code: 'BUSY' });
    expect(full.json().detail).toContain('20000 entries');
    // Who is in it may renew.
    expect(
      (await announce(registry, key, 'server', announcementOf('http://127.0.0.1:9000'))).statusCode,
    ).toBe(200);
  });

  it('limits the entries of one key', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    const [{ id: keyId }] = await listKeys(registry.entries.db);
    const apiKey = (await findKey(registry.entries.db, key, registry.clock.ms))!;
    expect(apiKey.id).toBe(keyId);
    const identity = await identityOf('server');
    for (let i = 0; i < 1000; i++) {
      const announcement = announcementOf('http://127.0.0.1:9000', { serviceId: `s${i}` });
      const payload = payloadOf(announcement, identity, registry.clock.ms);
      await registry.entries.announce(apiKey, payload, await identity.sign(announcementType, payload));
    }
    const full = await announce(registry, key, 'one-more', announcementOf('http://127.0.0.1:9000'));
    expect(problemSchema.parse(full.json())).toMatchObject({ status: 409, code: 'CONFLICT' });
    expect(
      (await announce(registry, key, 'server', announcementOf('http://127.0.0.1:9000', { serviceId: 's7' })))
        .statusCode,
    ).toBe(200);
    expect(
      (
        await announce(
          registry,
          await registry.key('other'),
          'other',
          announcementOf('http://127.0.0.1:9000'),
        )
      ).statusCode,
    ).toBe(200);
  });
});

describe('GET /api/services', () => {
  it('filters by modality, anatomy and task whatever the case, by words and by life', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    await postV1(
      registry,
      v1(key, { anatomy: 'Whole Brain', name: 'Brain', description: 'Für 100%_ige Köpfe' }),
    );
    await announce(registry, key, 'p', announcementOf('http://127.0.0.1:9000'));
    await announce(
      registry,
      key,
      'l',
      announcementOf('http://127.0.0.1:9000', {
        serviceId: 'l',
        name: 'Lungs',
        modality: 'CT',
        anatomy: 'lung',
      }),
    );
    const names = async (query: string) => (await search(registry, query)).map((entry) => entry.name);
    expect(await names('')).toEqual(['Brain', 'Lungs', 'Prostate net']);
    expect(await names('?modality=mri')).toEqual(['Brain', 'Prostate net']);
    expect(await names('?modality=mri&task=SEGMENTATION&anatomy=PROSTATE')).toEqual(['Prostate net']);
    expect(await names('?anatomy=whole-brain')).toEqual(['Brain']);
    expect(await names('?anatomy=whole%20BRAIN')).toEqual(['Brain']);
    expect(await names('?q=t2%20IMAGES')).toEqual(['Lungs', 'Prostate net']);
    expect(await names('?q=k%C3%96PFE%20100%25_')).toEqual(['Brain']);
    expect(await names('?q=%25')).toEqual(['Brain']);
    expect(await names("?q='%20OR%20'1'='1")).toEqual([]);
    registry.clock.ms += apiLifeMs;
    expect(await names('?live=true')).toEqual(['Brain']);
    expect(await names('?live=false')).toEqual(['Lungs', 'Prostate net']);
    expect((await registry.app.inject('/api/services?live=maybe')).statusCode).toBe(422);
  });

  it('shows an expired entry as not live for a day; sweep() then drops it', async () => {
    const registry = await openTestRegistry(cleanup);
    const key = await registry.key();
    await announce(registry, key, 'p', announcementOf('http://127.0.0.1:9000'));
    registry.clock.ms += apiLifeMs;
    expect(await search(registry)).toMatchObject([{ live: false }]);
    registry.clock.ms += keptMs - 1;
    expect(await registry.entries.sweep()).toBe(0);
    expect(await search(registry)).toHaveLength(1);
    registry.clock.ms += 1;
    expect(await search(registry)).toHaveLength(0);
    expect(await registry.entries.sweep()).toBe(1);
  });
});

describe('the database', () => {
  it('keeps entries, SIDs and keys over a restart, and no key in clear', async () => {
    const folder = await openFolder(cleanup);
    const first = await openTestRegistry(cleanup, { dataFolder: folder });
    const key = await first.key();
    const program = await renewProgramKey(first.entries.db, 'this machine', ['announce']);
    await announce(first, key, 'p', announcementOf('http://127.0.0.1:9000'));
    await announce(first, program, 'q', announcementOf('http://127.0.0.1:9001'));
    const before = await search(first);
    const sidAt = (url: string) => before.find((entry) => entry.serverUrl === url)!.sid;
    const look = async () => {
      const bytes = await databaseBytes(folder, 'registry.db');
      expect(bytes.includes('this machine')).toBe(true);
      for (const secret of [key, program]) {
        for (const part of [secret, secret.split('_').slice(2).join('_')]) {
          expect(bytes.includes(part)).toBe(false);
          expect(bytes.includes(Buffer.from(part, 'base64url'))).toBe(false);
        }
      }
    };
    await look();
    await first.close();
    await look();

    const second = await openTestRegistry(cleanup, { dataFolder: folder });
    expect(before).toHaveLength(2);
    expect(await search(second)).toEqual(before);
    expect((await announce(second, key, 'p', announcementOf('http://127.0.0.1:9000'))).json()).toMatchObject({
      sid: sidAt('http://127.0.0.1:9000'),
    });
    const renewed = await renewProgramKey(second.entries.db, 'this machine', ['announce']);
    expect(renewed.split('_')[1]).toBe(program.split('_')[1]);
    expect((await announce(second, program, 'q', announcementOf('http://127.0.0.1:9001'))).statusCode).toBe(
      401,
    );
    expect(
      (await announce(second, renewed, 'q', announcementOf('http://127.0.0.1:9001'))).json(),
    ).toMatchObject({ sid: sidAt('http://127.0.0.1:9001') });
  });
});

describe('keys', () => {
  it('createKey() gives 256 bits and an independent id; findKey() requires the whole', async () => {
    const { entries, clock } = await openTestRegistry(cleanup);
    const made = await createKey(entries.db, { label: ' lab ', scopes: ['predict', 'predict'] }, clock.ms);
    expect(made).toMatchObject({ label: 'lab', scopes: ['predict'] });
    const [, id, secret] = /^tmt_([a-z2-7]{10})_(.{43})$/.exec(made.key)!;
    expect(id).toBe(made.id);
    expect(Buffer.from(secret, 'base64url')).toHaveLength(32);
    expect(await findKey(entries.db, made.key)).toMatchObject({ id, scopes: ['predict'] });
    const last = made.key.endsWith('A') ? 'Q' : 'A';
    for (const wrong of [
      '',
      'tmt_',
      id,
      made.key.slice(0, -1),
      `${made.key.slice(0, -1)}${last}`,
      `${made.key} `,
      made.key.toUpperCase(),
      `${made.key}A`,
      'x'.repeat(1e6),
    ]) {
      expect(await findKey(entries.db, wrong)).toBeUndefined();
    }
    expect(JSON.stringify(await listKeys(entries.db))).not.toContain(secret);
  });

  it('createKey() refuses invalid scopes, labels and expiry; revokeKey() an unknown id', async () => {
    const { db } = (await openTestRegistry(cleanup)).entries;
    await expect(createKey(db, { label: 'x', scopes: [] })).rejects.toMatchObject({
      code: 'BAD_INPUT',
      field: 'scopes',
    });
    await expect(createKey(db, { label: 'x', scopes: ['all' as 'admin'] })).rejects.toMatchObject({
      field: 'scopes',
    });
    await expect(createKey(db, { label: ' ', scopes: ['admin'] })).rejects.toMatchObject({ field: 'label' });
    await expect(
      createKey(db, { label: 'x', scopes: ['admin'], expiresTime: new Date(0) }),
    ).rejects.toMatchObject({ field: 'expires' });
    await expect(revokeKey(db, 'none')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe('toSlug()', () => {
  it('makes any name an address', () => {
    expect(toSlug('Whole Brain')).toBe('whole-brain');
    expect(toSlug('  Foie (segments I–VIII)! ')).toBe('foie-segments-i-viii');
    expect(toSlug('Schädel')).toBe('schadel');
    expect(toSlug('!!')).toBe('');
    expect(toSlug('a'.repeat(60))).toHaveLength(40);
  });
});
