import { expect, it } from 'vitest';
import { eachAtMost } from './at-most.ts';

it('eachAtMost() does each item once, in order, never more than so many at a time', async () => {
  const begun: number[] = [];
  let [now, most] = [0, 0];
  await eachAtMost(
    3,
    Array.from({ length: 20 }, (_, i) => i),
    async (item) => {
      begun.push(item);
      most = Math.max(most, ++now);
      for (let turns = 0; turns < item % 4; turns++) await undefined;
      now--;
    },
  );
  expect(begun).toEqual(Array.from({ length: 20 }, (_, i) => i));
  expect(most).toBe(3);
});

it('eachAtMost() throws the error of an item', async () => {
  const failing = eachAtMost(2, [1, 2, 3], async (item) => {
    if (item === 2) throw new Error('2 is wrong');
  });
  await expect(failing).rejects.toThrow('2 is wrong');
});
