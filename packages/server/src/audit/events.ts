/** The events of the audit log. */
export type AuditEvent =
  | 'server.started'
  | 'server.stopped'
  | 'identity.changed'
  | 'log.continued'
  | 'log.repaired'
  | 'log.lost'
  | 'prediction.accepted'
  | 'prediction.succeeded'
  | 'prediction.failed'
  | 'prediction.canceled'
  | 'result.read'
  | 'model.read'
  | 'job.kept'
  | 'job.deleted'
  | 'job.expired'
  | 'series.matched'
  | 'series.fetched'
  | 'series.sent'
  | 'series.computed'
  | 'series.stored'
  | 'series.refused'
  | 'series.retried'
  | 'series.dropped'
  | 'gateway.started'
  | 'gateway.stopped'
  | 'upload.received'
  | 'upload.deleted'
  | 'upload.expired'
  | 'key.created'
  | 'key.renewed'
  | 'key.revoked'
  | 'login.succeeded'
  | 'login.failed'
  | 'access.denied'
  | 'erasure.begun'
  | 'erasure.done'
  | 'backup.made'
  | 'backup.restored'
  | 'data.moved';

/** The fields of a line besides its event; nothing else is accepted. */
export interface AuditFacts {
  /** Who: an owner as in access/principal.ts, without a name. */
  who?: string;
  keyId?: string;
  scopes?: readonly string[];
  service?: string;
  version?: string;
  job?: string;
  upload?: string;
  output?: string;
  format?: string;
  /** Digests of files, by input or output. */
  inputs?: readonly { name: string; digest: string; received?: string }[];
  outputs?: readonly { name: string; digest: string }[];
  digest?: string;
  /** SHA-256 of the UIDs of a study and of a series in it. */
  study?: string;
  series?: string;
  /** Names in a gateway's file of rules. */
  rule?: string;
  source?: string;
  destination?: string;
  /** Whether the patient's identity was removed from what was sent. */
  deidentified?: boolean;
  /** A route as registered: no text from a caller. */
  route?: string;
  /** An error's code, or another fixed word. */
  outcome?: string;
  count?: number;
  /** Thumbprints of the key that signs now, and of the one that signed before. */
  identity?: string;
  previous?: string;
}
