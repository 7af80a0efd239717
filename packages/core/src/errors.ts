/**
 * Every error of TOMAAT: the code, its HTTP status, and whose fault it is. A
 * caller's fault is never retried; an app's fault fails the job; a server's fault may be retried.
 */
const table = {
  // What a caller sent.
  UNKNOWN_FORMAT: [415, 'caller', 'The file is not a volume in a supported format'],
  UNSUPPORTED_FORMAT: [415, 'caller', 'This kind of file is recognised but not supported'],
  BAD_HEADER: [422, 'caller', 'The header of the volume is invalid'],
  BAD_VOXELS: [422, 'caller', 'The voxel data of the volume is damaged'],
  FRAME_NEEDED: [422, 'caller', 'The volume is 4-D and one frame must be chosen'],
  TOO_MANY_VOXELS: [413, 'caller', 'The volume has more voxels than allowed'],
  UPLOAD_TOO_LARGE: [413, 'caller', 'The upload is larger than allowed'],
  UPLOAD_TOO_SLOW: [408, 'caller', 'The upload was too slow'],
  BAD_REQUEST: [400, 'caller', 'The request is malformed'],
  BAD_INPUT: [422, 'caller', 'An input is missing, unknown or has an invalid value'],
  NOT_ACCEPTED: [422, 'caller', 'The app does not accept this volume'],
  INPUTS_MISSING: [409, 'caller', 'The service needs more inputs than were sent'],
  NOT_FOUND: [404, 'caller', 'Not found'],
  METHOD_NOT_ALLOWED: [405, 'caller', 'This address does not support that method'],
  UNSUPPORTED_MEDIA: [415, 'caller', 'The content type of the body is not supported'],
  BAD_RANGE: [416, 'caller', 'The range starts beyond the end of the file'],
  NOT_ACCEPTABLE: [406, 'caller', 'The output is not available in that format'],
  NOT_READY: [409, 'caller', 'The job has no result yet'],
  CANCELED: [409, 'caller', 'The job was cancelled'],
  CONFLICT: [409, 'caller', 'The request conflicts with an earlier one'],
  UNAUTHORIZED: [401, 'caller', 'A valid API key is required'],
  FORBIDDEN: [403, 'caller', 'This is not allowed'],
  MISDIRECTED: [421, 'caller', 'The server does not serve this host name'],
  BAD_SIGNATURE: [422, 'caller', 'Invalid signature'],
  LIMIT_REACHED: [429, 'caller', 'This client has reached a limit'],
  HEADER_TOO_LARGE: [431, 'caller', 'The header is larger than allowed'],
  // What an app did.
  BAD_MANIFEST: [422, 'app', 'The app is broken: its manifest, model or code has errors'],
  APP_FAILED: [422, 'app', 'The app failed on this input'],
  APP_OUTPUT: [422, 'app', 'The app returned something that does not fit its manifest'],
  TIMEOUT: [422, 'app', 'The prediction took longer than its limit'],
  OUT_OF_MEMORY: [422, 'app', 'The prediction exceeded its memory limit'],
  // What happened on our side.
  WORKER_DIED: [503, 'server', 'The process that computed the prediction died'],
  BUSY: [503, 'server', 'The server cannot take this now'],
  DISK_FULL: [507, 'server', 'The disk of the server is full'],
  DAMAGED: [500, 'server', 'A file stored by the server is damaged'],
  UPSTREAM: [502, 'server', 'The server behind this address failed'],
  UNREACHABLE: [503, 'server', 'The server cannot be reached'],
  INTERNAL: [500, 'server', 'Something went wrong on the server'],
} as const satisfies Record<string, readonly [number, 'caller' | 'app' | 'server', string]>;

export type ErrorCode = keyof typeof table;
export const errorCodes = Object.keys(table) as ErrorCode[];

/** The properties of a code: HTTP status, whose fault it is, whether to retry, a title in plain words. */
export function describeError(code: ErrorCode) {
  const [status, fault, title] = table[code];
  return { code, status, fault, retryable: fault === 'server', title };
}

/** The form in which an error crosses a process or the network. */
export interface ErrorData {
  code: ErrorCode;
  /** What was wrong and what to do, in one or two sentences. */
  message: string;
  /** The input, parameter or manifest path that it is about. */
  field?: string;
  /** Facts for programs, such as the list of the inputs that are missing. */
  detail?: Record<string, unknown>;
}

/** The one error class of TOMAAT. `message` says what was wrong and what to do about it. */
export class TomaatError extends Error {
  readonly code: ErrorCode;
  readonly field?: string;
  readonly detail?: Record<string, unknown>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { field?: string; detail?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.name = 'TomaatError';
    this.code = code;
    this.field = options.field;
    this.detail = options.detail;
  }

  get status(): number {
    return table[this.code][0];
  }

  toJSON(): ErrorData {
    return { code: this.code, message: this.message, field: this.field, detail: this.detail };
  }

  /** Revives an error from another process or the network; an unknown code becomes INTERNAL. */
  static from(data: ErrorData): TomaatError {
    const code = Object.hasOwn(table, data.code) ? data.code : 'INTERNAL';
    return new TomaatError(code, data.message, { field: data.field, detail: data.detail });
  }
}

/** The error with its field, if it names none yet. */
export function withField(error: unknown, field: string): unknown {
  if (!(error instanceof TomaatError) || error.field) return error;
  return new TomaatError(error.code, error.message, { field, detail: error.detail, cause: error.cause });
}
