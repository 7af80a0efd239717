/** The entry point for programs in Node: apps without a server, and access to servers with the certificates and keys that the command line knows. */
export { type ConnectOptions, connectTo, type Reached, type Told } from './cli/connect.ts';
export { type FindOptions, type FoundService, findService } from './cli/find-service.ts';
export {
  type LocalApp,
  type LocalFile,
  type LocalOutput,
  type LocalPrediction,
  type LocalPredictOptions,
  type OpenAppOptions,
  openApp,
} from './local-app.ts';
export type { ModelServers } from './trust/model-servers.ts';
