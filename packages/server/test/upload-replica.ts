import { join } from 'node:path';
import { createApp, listenHttp } from '../src/http/app.ts';
import { openPublicAddress } from '../src/http/public-address.ts';
import { registerUploadRoutes } from '../src/http/uploads.ts';
import { openBlobs } from '../src/store/blobs/blobs.ts';
import { openServerDatabase } from '../src/store/database/server-database.ts';
import { openUploads } from '../src/store/uploads/uploads.ts';

/* The uploads of one of several servers, in a process of its own: node upload-replica.ts DATABASE BLOBS FOLDER. Prints its address. */

const [databaseUrl, blobsFolder, folder] = process.argv.slice(2);
const database = await openServerDatabase(folder, databaseUrl);
const blobs = await openBlobs(blobsFolder, { isShared: true });
const maxUploadBytes = 2 ** 30;
const uploads = await openUploads({
  database,
  blobs,
  folder: join(folder, 'uploads'),
  shared: { hold: async () => {}, release: async () => {}, drop: async () => {} },
  writerLeaseMs: 1500,
  maxBytes: maxUploadBytes,
  isHeld: (digest) => uploads.keeps(digest),
});
const address = openPublicAddress();
const app = createApp(false, { address });
registerUploadRoutes(app, {
  address,
  maxUploadBytes,
  uploads,
  pace: {},
  ownerOf: () => 'anonymous',
  admission: { requireOpen() {} },
});
const { port } = await listenHttp(app, '127.0.0.1', 0);
console.log(`http://127.0.0.1:${port}`);
