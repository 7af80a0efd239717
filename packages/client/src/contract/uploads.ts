import { z } from 'zod';
import { type Endpoint, idParam } from './endpoint.ts';

const tusResumable = {
  'Tus-Resumable': {
    description: 'Version of tus',
    schema: z.enum(['1.0.0']),
    required: true,
  },
} as const;
const tusHeaders = {
  ...tusResumable,
  'X-HTTP-Method-Override':
    'The intended method, sent by POST: for networks that block PATCH, HEAD or DELETE',
} as const;
const bytesHeader = (description: string) =>
  ({ description, schema: z.int().min(0), required: true }) as const;

export const uploadEndpoints = {
  describeUploads: {
    method: 'OPTIONS',
    path: '/api/uploads',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: what of it is spoken here',
    responses: {
      204: {
        description: 'It is in the header',
        headers: ['Tus-Resumable', 'Tus-Version', 'Tus-Extension', 'Tus-Max-Size'],
      },
    },
  },
  createUpload: {
    method: 'POST',
    path: '/api/uploads',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: begin a resumable upload',
    headers: {
      ...tusResumable,
      'Upload-Length': bytesHeader('Bytes of the file'),
      'Upload-Metadata': 'filename and sha256 (hex), each in base64; the sha256 is checked at the end',
    },
    responses: {
      201: {
        description: 'Its address is in Location; it expires at Upload-Expires',
        headers: ['Location', 'Tus-Resumable', 'Upload-Offset', 'Upload-Expires'],
      },
    },
  },
  getUpload: {
    method: 'HEAD',
    path: '/api/uploads/{id}',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: how many bytes are there (Upload-Offset)',
    headers: tusHeaders,
    params: idParam,
    responses: {
      200: {
        description: 'How much is there, and of how much; the digest once it is whole',
        headers: [
          'Tus-Resumable',
          'Upload-Offset',
          'Upload-Length',
          'Upload-Expires',
          'Upload-Metadata',
          'TOMAAT-Digest',
        ],
      },
    },
  },
  appendUpload: {
    method: 'PATCH',
    path: '/api/uploads/{id}',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: send bytes from Upload-Offset on',
    headers: { ...tusHeaders, 'Upload-Offset': bytesHeader('Where the bytes begin') },
    params: idParam,
    body: { description: 'The bytes', content: { 'application/offset+octet-stream': 'binary' } },
    responses: {
      204: {
        description: 'They are on the disk; Upload-Offset says how many there are',
        headers: ['Tus-Resumable', 'Upload-Offset', 'Upload-Expires', 'TOMAAT-Digest'],
      },
    },
  },
  deleteUpload: {
    method: 'DELETE',
    path: '/api/uploads/{id}',
    on: 'server',
    tag: 'uploads',
    summary: 'tus 1.0: delete an upload, whole or not',
    headers: tusHeaders,
    params: idParam,
    responses: { 204: { description: 'Gone', headers: ['Tus-Resumable'] } },
  },
  headBlob: {
    method: 'HEAD',
    path: '/api/blobs/{digest}',
    on: 'server',
    tag: 'uploads',
    summary: 'Whether a file of yours with this SHA-256 (sha256:…) is there already',
    params: z.object({ digest: z.string() }),
    responses: { 200: { description: 'It is' } },
  },
} as const satisfies Record<string, Endpoint>;
