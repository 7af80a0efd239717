import { expect, it } from 'vitest';
import { createBlobHolds } from './blob-holds.ts';
import type { SharedHolds } from './shared-holds.ts';

it('renew() releases no hold that is made while the database answers', async () => {
  const released: string[] = [];
  const shared: Partial<SharedHolds> = {
    hold: async () => {},
    release: async (digests) => void released.push(...digests),
    mark: async () => {},
    async renew() {
      await holds.hold('sha256:new');
      return ['sha256:left', 'sha256:new'];
    },
  };
  const holds = createBlobHolds(undefined as never, undefined as never, shared as SharedHolds);
  await holds.renew();
  expect(released).toEqual(['sha256:left']);
});
