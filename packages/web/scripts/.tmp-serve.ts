import { mkdtempSync } from 'node:fs';
import pino from 'pino';
import { startServer } from '/work/main/packages/server/src/server.ts';

const s = await startServer({
  appFolders: ['threshold', 'ct-lung', 'ct-body'].map((a) => '/work/main/apps/' + a),
  port: 9317,
  tlsPort: 0,
  dataFolder: mkdtempSync('/tmp/webdata-'),
  page: '/work/main/packages/web/dist',
  logger: pino({ level: 'warn' }),
});
console.log(s.url);
process.on('SIGTERM', () => void s.close().then(() => process.exit(0)));
