import { describe, expect, it } from 'vitest';
import { createFairPlaces, type Place } from './fair-places.ts';

const forever = new AbortController().signal;
const open = (maxWaiting = 4) =>
  createFairPlaces({ atATime: 2, maxWaiting, busyMessage: 'Come back later.' });
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Asks for a place and takes down who gets one, in order. */
function asking(places: ReturnType<typeof open>) {
  const entered: string[] = [];
  const refused: string[] = [];
  const held = new Map<string, Place>();
  const ask = (name: string, signal = forever) =>
    void places.enter(name[0], signal).then(
      (place) => {
        entered.push(name);
        held.set(name, place);
      },
      (error: Error) => refused.push(`${name}: ${error.message}`),
    );
  const leave = async (name: string) => {
    held.get(name)?.[Symbol.dispose]();
    await turn();
  };
  return { ask, leave, entered, refused, held };
}

describe('createFairPlaces()', () => {
  it('gives one owner all places', async () => {
    const { ask, leave, entered, held } = asking(open());
    for (const name of ['a1', 'a2', 'a3', 'a4']) ask(name);
    await turn();
    expect(entered).toEqual(['a1', 'a2']);
    expect([...held.values()].map(({ revoked }) => revoked.aborted)).toEqual([false, false]);
    await leave('a1');
    await leave('a1');
    expect(entered).toEqual(['a1', 'a2', 'a3']);
  });

  it('revokes the youngest of several places for an owner who has none', async () => {
    const { ask, leave, entered, held } = asking(open());
    for (const name of ['a1', 'a2', 'a3', 'b1', 'c1']) ask(name);
    await turn();
    expect(held.get('a1')?.revoked.aborted).toBe(false);
    expect(held.get('a2')?.revoked.aborted).toBe(true);
    await leave('a2');
    expect(entered).toEqual(['a1', 'a2', 'b1']);
    await leave('a1');
    expect(entered).toEqual(['a1', 'a2', 'b1', 'c1']);
  });

  it('lets work whose place was revoked in again before others of its owner', async () => {
    const places = open(1);
    const { ask, leave, entered, held } = asking(places);
    for (const name of ['a1', 'a2', 'b1']) ask(name);
    await turn();
    await leave('a2');
    void places.enter('a', forever, { again: true }).then((place) => {
      entered.push('a2 again');
      held.set('a2 again', place);
    });
    ask('a3');
    await turn();
    await leave('b1');
    expect(entered).toEqual(['a1', 'a2', 'b1', 'a2 again']);
  });

  it('refuses the newest of the owner with the most when too many wait', async () => {
    const { ask, leave, entered, refused } = asking(open());
    for (const name of ['a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'a7', 'b1']) ask(name);
    await turn();
    expect(refused).toEqual(['a7: Come back later.', 'a6: Come back later.']);
    for (const name of ['b2', 'b3']) ask(name);
    await turn();
    // b has two of four now, as many as a: a third would be more.
    expect(refused.slice(2)).toEqual(['b3: Come back later.', 'a5: Come back later.'].sort().reverse());
    await leave('a2');
    await leave('a1');
    expect(entered).toEqual(['a1', 'a2', 'b1', 'a3']);
  });

  it('forgets who gives up', async () => {
    const { ask, leave, entered, refused } = asking(open());
    for (const name of ['a1', 'a2']) ask(name);
    const gone = new AbortController();
    ask('a3', gone.signal);
    ask('a4');
    gone.abort(new Error('Gone.'));
    await turn();
    expect(refused).toEqual(['a3: Gone.']);
    await leave('a1');
    expect(entered).toEqual(['a1', 'a2', 'a4']);
  });
});
