import { auto3dsegEndpoints } from './contract/auto3dseg.ts';
import type { Endpoint } from './contract/endpoint.ts';
import { gatewayEndpoints } from './contract/gateway.ts';
import { jobEndpoints } from './contract/jobs.ts';
import { loginEndpoints } from './contract/login.ts';
import { monaiLabelEndpoints } from './contract/monailabel.ts';
import { operationEndpoints } from './contract/operations.ts';
import { predictionEndpoints } from './contract/predictions.ts';
import { registryEndpoints } from './contract/registry.ts';
import { serviceEndpoints } from './contract/services.ts';
import { uploadEndpoints } from './contract/uploads.ts';
import { v1Endpoints } from './contract/v1.ts';
import { workerEndpoints } from './contract/workers.ts';

/**
 * Every endpoint of a server, a registry and a gateway, defined once. Validation, OpenAPI and the client's types are derived
 * from this table. The faces that follow other specifications (v1, the promise) are documented here and implemented
 * exactly as specified.
 */
export const endpoints = {
  ...serviceEndpoints,
  ...predictionEndpoints,
  ...uploadEndpoints,
  ...jobEndpoints,
  ...v1Endpoints,
  ...monaiLabelEndpoints,
  ...auto3dsegEndpoints,
  ...registryEndpoints,
  ...gatewayEndpoints,
  ...workerEndpoints,
  ...loginEndpoints,
  ...operationEndpoints,
} as const satisfies Record<string, Endpoint>;

export type EndpointName = keyof typeof endpoints;
