import { describe, expect, it } from 'vitest';
import { openSeries } from './open-series.ts';

/** The name of the first series of a selection. */
async function nameOf(name: string | undefined, cards: readonly object[]): Promise<string> {
  const series = cards.map((card, i) => ({ uid: `1.2.${i}`, content: 'images', ...card }));
  const session = { name, series, leftOut: [], call: async () => ({}), close: () => undefined };
  return (await openSeries(session as never, series[0] as never)).name;
}
const axial = { number: 4, description: 'T2/FLAIR ax' };

describe('the name of a chosen series', () => {
  it('is that of the folder or archive, with the series if there are several', async () => {
    expect(await nameOf('knee', [axial])).toBe('knee');
    expect(await nameOf('knee', [axial, { number: 5 }])).toBe('knee_series4');
    expect(await nameOf('knee', [axial, { number: 5, refusal: 'a gap' }])).toBe('knee');
    expect(await nameOf('knee', [{ description: 'b/w' }, { number: 5 }])).toBe('knee_b-w');
  });

  it('is the series’ own for several files, of which none names it', async () => {
    expect(await nameOf(undefined, [axial])).toBe('T2-FLAIR ax');
    expect(await nameOf(undefined, [{ number: 4 }])).toBe('series4');
    expect(await nameOf(undefined, [{}, axial])).toBe('series');
  });
});
