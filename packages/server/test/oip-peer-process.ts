/** A model server in a process of its own, so that it can be killed and measured; ends with its parent. */
import { identity, startGrpcPeer } from './oip-peer.ts';

const peer = await startGrpcPeer({
  identity,
  hang: {
    infer() {
      process.send?.('called');
      return new Promise(() => {});
    },
  },
});
process.on('disconnect', () => process.exit(0));
process.send?.({ port: peer.port });
