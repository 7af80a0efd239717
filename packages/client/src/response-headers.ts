/** The response headers, each described once; the contract lists which endpoint sends which. */

const descriptions = {
  Location: 'Address of what was made, from the root of the host',
  'Preference-Applied': 'What of Prefer was heeded',
  'Retry-After': 'Seconds to wait before the next try',
  'WWW-Authenticate': 'How to log in',
  Allow: 'The methods that this address takes',
  'Content-Disposition': 'Name of the file (RFC 6266)',
  ETag: 'The file’s digest, for If-Range and If-None-Match',
  'Accept-Ranges': 'Whether a part of the file may be asked for',
  'Content-Range': 'Which part of the file this is',
  Link: 'With rel="tomaat-receipt": where the signed receipt is, if it is too long for TOMAAT-Receipt',
  'TOMAAT-Service': 'Id of the service that answered',
  'TOMAAT-Server': 'Base address of the server that the registry passed the request on to',
  'TOMAAT-Receipt': 'The signed receipt, a compact JWS; see Link where it is missing',
  'TOMAAT-Stripped':
    'Inputs from which the server removed what may identify the patient, with the UIDs of DICOM files replaced',
  'TOMAAT-Digest': 'sha256:… of the file, once it is whole',
  'Tus-Resumable': 'Version of tus',
  'Tus-Version': 'Versions of tus that are spoken here',
  'Tus-Extension': 'Extensions of tus that are spoken here',
  'Tus-Max-Size': 'Bytes of the largest upload',
  'Upload-Offset': 'How many bytes are there',
  'Upload-Length': 'Bytes of the whole file',
  'Upload-Metadata': 'As it was sent when the upload was made',
  'Upload-Expires': 'When the upload is deleted, if nothing comes',
} as const;
export type ResponseHeader = keyof typeof descriptions;

/** Headers that any error response may have. */
export const errorHeaders = [
  'Retry-After',
  'WWW-Authenticate',
  'Allow',
  'Tus-Resumable',
  'Tus-Version',
  'Content-Range',
] as const satisfies readonly ResponseHeader[];

export const describeHeader = (name: ResponseHeader): string => descriptions[name];
