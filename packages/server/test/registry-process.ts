/** A registry in a process of its own, so that a test can measure its memory. Speaks by IPC; ends with its parent. */
import { startRegistry } from '../src/registry/start.ts';

const [dataFolder] = process.argv.slice(2);
const registry = await startRegistry({ host: '127.0.0.1', port: 0, dataFolder, logger: false });
process.on('message', () => process.send?.({ rssBytes: process.memoryUsage.rss() }));
process.on('disconnect', () => process.exit(0));
process.send?.({ url: registry.url, key: await registry.apiKey('test') });
