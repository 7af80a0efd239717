import { describe, expect, it } from 'vitest';
import { chooseToDelete, type StoredUpload } from './upload-room.ts';

const nowMs = 10_000_000;
const upload = (id: string, sizeBytes: number, more: Partial<StoredUpload> = {}): StoredUpload => ({
  id,
  owner: id[0],
  sizeBytes,
  receivedBytes: 0,
  usedMs: nowMs - 600_000,
  isWritten: false,
  ...more,
});
const choose = (uploads: readonly StoredUpload[], owner = 'b', sizeBytes = 10) =>
  chooseToDelete(uploads, { owner, sizeBytes, nowMs })?.id;

describe('chooseToDelete()', () => {
  it('takes from the owner with the most, what was used longest ago', () => {
    const uploads = [
      upload('a1', 100),
      upload('a2', 100, { usedMs: nowMs - 700_000 }),
      upload('c1', 150, { usedMs: 0 }),
    ];
    expect(choose(uploads)).toBe('a2');
  });

  it('takes nothing from owners who have less than the requester would', () => {
    const uploads = [upload('a1', 100), upload('b1', 50)];
    expect(choose(uploads, 'b', 49)).toBe('a1');
    expect(choose(uploads, 'b', 50)).toBeUndefined();
    expect(choose(uploads, 'a', 10)).toBeUndefined();
  });

  it('leaves the one alone that its owner is busy with', () => {
    const busy = upload('a1', 100, { receivedBytes: 5, usedMs: nowMs - 1000 });
    expect(choose([busy])).toBeUndefined();
    expect(choose([busy, upload('a2', 1, { receivedBytes: 1, usedMs: nowMs - 1000 })])).toBe('a2');
    // An empty one is not yet anybody’s work, and an abandoned one no longer is.
    expect(choose([upload('a1', 100, { usedMs: nowMs - 1000 })])).toBe('a1');
    expect(choose([{ ...busy, usedMs: nowMs - 61_000 }])).toBe('a1');
  });

  it('leaves it alone for a minute after its last use, to the millisecond', () => {
    const used = (agoMs: number) => upload('a1', 100, { receivedBytes: 1, usedMs: nowMs - agoMs });
    expect(choose([used(59_999)])).toBeUndefined();
    expect(choose([used(60_000)])).toBe('a1');
  });

  it('leaves the first of two alone that are as far', () => {
    const written = (id: string) => upload(id, 100, { receivedBytes: 5, isWritten: true });
    expect(choose([written('a1'), written('a2')])).toBe('a2');
    expect(choose([written('a2'), written('a1')])).toBe('a1');
  });

  it('takes from the largest owner, never below what the requester would have', () => {
    const uploads = [upload('a1', 60), upload('c1', 100), upload('d1', 80)];
    expect(choose(uploads)).toBe('c1');
    expect(choose(uploads, 'b', 99)).toBe('c1');
    expect(choose(uploads, 'b', 100)).toBeUndefined();
    expect(choose([])).toBeUndefined();
  });

  it('takes unfinished ones last, the least advanced first', () => {
    const written = (id: string, receivedBytes: number) =>
      upload(id, 100, { isWritten: true, receivedBytes, usedMs: nowMs });
    const three = [written('a1', 50), written('a2', 10), written('a3', 30)];
    expect(choose([...three, upload('a4', 1)])).toBe('a4');
    expect(choose(three)).toBe('a2');
    expect(choose([three[0], three[2]])).toBe('a3');
    expect(choose([three[0]])).toBeUndefined();
  });

  it('continues with the next owner where the largest has only unfinished work', () => {
    const busy = upload('a1', 100, { isWritten: true, receivedBytes: 1 });
    expect(choose([busy, upload('c1', 50)])).toBe('c1');
  });
});
