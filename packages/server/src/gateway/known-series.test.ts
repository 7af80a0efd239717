import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Kysely } from 'kysely';
import { expect, it } from 'vitest';
import { openGatewayDatabase } from '../store/database/gateway-database.ts';
import type { SeriesSchema } from '../store/database/series-schema.ts';
import { createKnownSeries } from './known-series.ts';

it('createKnownSeries() tells rules, studies, series, instances and data folders apart', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tomaat-known-'));
  try {
    await using database = await openGatewayDatabase(folder);
    const db = database.db as unknown as Kysely<SeriesSchema>;
    const known = createKnownSeries(new Uint8Array(32), () => 3);
    const place = { rule: 'a', source: 'pacs', study: '1.2', series: '1.2.3' };
    await known.addContent(db, place, 'digest', 0);
    await known.addPlace(db, place, 7, 0);
    await known.addOwn(db, 'pacs', '1.2.9', 0);
    expect(await known.hasContent(db, place, 'digest', 0)).toBe(true);
    expect(await known.hasContent(db, { ...place, source: 'second' }, 'digest', 0)).toBe(true);
    expect(await known.hasContent(db, place, 'another', 0)).toBe(false);
    expect(await known.instancesAt(db, place, 0)).toBe(7);
    for (const other of [{ rule: 'b' }, { study: '1.3' }, { series: '1.2.4' }]) {
      expect(await known.hasContent(db, { ...place, ...other }, 'digest', 0)).toBe(false);
      expect(await known.instancesAt(db, { ...place, ...other }, 0)).toBeUndefined();
    }
    expect(await known.instancesAt(db, { ...place, source: 'second' }, 0)).toBeUndefined();
    expect(await known.isOwn(db, 'second', '1.2.9', 0)).toBe(true);
    expect(await known.isOwn(db, 'pacs', '1.2.3', 0)).toBe(false);
    const elsewhere = createKnownSeries(new Uint8Array(32).fill(1), () => 3);
    expect(await elsewhere.hasContent(db, place, 'digest', 0)).toBe(false);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
