import { describeError, TomaatError } from '@tomaat/core';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { App } from '../apps.ts';
import { convertOutput, outputFileName } from '../http/outputs.ts';
import { apiForm, multipart, type RequestForm } from '../http/request-form.ts';
import { contentDisposition } from '../http/send.ts';
import type { BodyPart } from '../intake/body-part.ts';
import { queryWord } from '../intake/query.ts';
import { setRetryAfter } from '../problem/problem.ts';
import { version } from '../version.ts';
import { describeModel, isModel, labelTable, neededVolumes } from './auto3dseg-models.ts';
import type { Face } from './face.ts';
import { predict, problemHandler } from './predict.ts';

/** The k-th volume of an app, counted from 0, comes as image_file, image_file_2 … */
const partName = (k: number) => (k === 0 ? 'image_file' : `image_file_${k + 1}`);

const form: RequestForm = {
  ...apiForm,
  bodies: [
    {
      ...multipart,
      async *read(body, contentType, app) {
        const volumes = neededVolumes(app.manifest);
        for await (const part of multipart.read(body, contentType, app))
          if (part.fileName !== undefined) yield renamed(part, volumes);
      },
    },
  ],
  advice:
    'Send multipart/form-data with the volume as the file image_file, and further ones as image_file_2 …',
  takesUploads: false,
  takesOptions: false,
  formats: () => undefined,
};

function renamed(part: BodyPart, volumes: readonly string[]): BodyPart {
  const at = volumes.findIndex((_, k) => partName(k) === part.name);
  if (at >= 0) return { ...part, name: volumes[at] };
  throw new TomaatError(
    'BAD_INPUT',
    `The files of this model are: ${volumes.map((_, k) => partName(k)).join(', ')}. Leave other files out.`,
    { field: 'image_file' },
  );
}

/**
 * The server of Auto3DSeg's module for 3D Slicer ("Process on remote server"): the volumes as files, the label map of the
 * primary output as NRRD on the grid of the first one, with the values of the app. The module shows of an error only what its
 * status means.
 */
export const auto3dseg = {
  name: 'auto3dseg',
  form,

  register(app, context) {
    const errorHandler = problemHandler(auto3dseg, context);
    const models = () => context.services.apps.filter(({ manifest }) => isModel(manifest));
    const modelOf = (request: FastifyRequest, parameter: string): App => {
      const id = queryWord(request, parameter) ?? '';
      const found = models().find(({ manifest }) => manifest.id === id);
      if (found) return found;
      const ids = models().map(({ manifest }) => manifest.id);
      throw new TomaatError(
        'NOT_FOUND',
        `There is no such model here. Send ${parameter}, one of: ${ids.join(', ') || 'none'}.`,
        { field: parameter },
      );
    };
    const at = '/auto3dseg';
    app.get(`${at}/models`, async () => models().map(({ manifest }) => describeModel(manifest)));
    app.get(`${at}/modelinfo`, { errorHandler, exposeHeadRoute: false }, async (request) =>
      describeModel(modelOf(request, 'id').manifest),
    );
    // A text, as `pip show` prints it.
    app.get(`${at}/monaiinfo`, async (_request, reply) =>
      sendWhole(reply, JSON.stringify(`Name: tomaat\nVersion: ${version}\n`), 'application/json'),
    );
    app.get(`${at}/labelDescriptions`, { errorHandler, exposeHeadRoute: false }, async (request, reply) => {
      const { manifest } = modelOf(request, 'id');
      reply.header('content-disposition', contentDisposition('labels.csv'));
      return sendWhole(reply, labelTable(manifest), 'text/csv; charset=utf-8');
    });
    app.post(`${at}/infer`, { errorHandler }, async (request, reply) =>
      predict(request, reply, modelOf(request, 'model_name'), auto3dseg, context),
    );
  },

  async sendResult(reply, job, context) {
    const primary = job.outputs.find((output) => output.primary)!;
    const how = { to: 'nrrd', forViewer: { numbered: false } } as const;
    const { stream, sizeBytes } = await convertOutput(reply, job, primary, how, context);
    return reply
      .header('cache-control', 'no-store')
      .header('content-disposition', contentDisposition(outputFileName(job, primary, 'nrrd')))
      .header('content-length', sizeBytes)
      .type('application/octet-stream')
      .send(stream);
  },

  sendProblem(reply, error) {
    const { status, title } = describeError(error.code);
    setRetryAfter(reply, error);
    const body = JSON.stringify({ error: title, message: error.message });
    return sendWhole(reply.code(status), body, 'application/json');
  },
} satisfies Face;

function sendWhole(reply: FastifyReply, text: string, type: string): FastifyReply {
  return reply.header('content-length', Buffer.byteLength(text)).type(type).send(text);
}
