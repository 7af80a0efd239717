import { z } from 'zod';
import { type Endpoint, json } from './endpoint.ts';

/** The sender of a request, as the page shows it. */
export const meSchema = z.object({
  login: z.enum(['required', 'off']).describe('off: everything is open to this machine'),
  who: z
    .object({
      kind: z.enum(['key', 'oidc']),
      owner: z.string().describe('Whose jobs are seen; stays the same over sessions'),
      label: z.string(),
      scopes: z.array(z.string()),
      expiresTime: z.string().optional().describe('When the session or the key ends'),
    })
    .optional()
    .describe('Missing when nobody is logged in'),
  ways: z
    .object({
      key: z.boolean(),
      oidc: z
        .object({ host: z.string(), address: z.string().describe('Path to go to; takes ?return=') })
        .optional(),
    })
    .describe('How one logs in here'),
  contact: z
    .string()
    .max(200)
    .optional()
    .describe('Who gives access here, as the operator set it: text, an email address or an https address'),
});
export type Me = z.infer<typeof meSchema>;

/** What remains of a login after a logout. */
export const loggedOutSchema = z.object({
  issuer: z
    .object({
      host: z.string(),
      address: z
        .string()
        .optional()
        .describe('Where to send the browser to end the session there; missing if the issuer offers none'),
    })
    .describe('Still logged in there'),
});
export type LoggedOut = z.infer<typeof loggedOutSchema>;

export const loginEndpoints = {
  me: {
    method: 'GET',
    path: '/auth/me',
    on: 'all',
    tag: 'login',
    summary: 'Who is logged in, and how one logs in; also for those who are not',
    query: z.object({
      page: z
        .string()
        .optional()
        .describe('Address of the page that asks: 403 if it may not use this server'),
    }),
    responses: { 200: json(meSchema, 'Who it is') },
  },
  logIn: {
    method: 'POST',
    path: '/auth/session',
    on: 'all',
    tag: 'login',
    summary: 'Logs a browser in with a key; the session is a cookie. Programs send the key itself',
    body: {
      description: 'The key',
      content: { 'application/json': z.strictObject({ key: z.string() }) },
    },
    responses: { 204: { description: 'The cookie is in Set-Cookie' } },
  },
  logOut: {
    method: 'DELETE',
    path: '/auth/session',
    on: 'all',
    tag: 'login',
    summary: 'Ends the session of the cookie, at once',
    responses: {
      200: json(loggedOutSchema, 'It has ended; the OpenID Connect issuer that opened it has a session too'),
      204: { description: 'It has ended' },
    },
  },
  oidcLogin: {
    method: 'GET',
    path: '/auth/oidc/login',
    on: 'all',
    tag: 'login',
    summary: 'Sends the browser to the OpenID Connect issuer to log in there',
    query: z.object({
      return: z.string().optional().describe('Path of this server to open afterwards'),
      again: z
        .string()
        .optional()
        .describe('If given, the issuer asks who it is even if it knows (prompt=login)'),
    }),
    responses: { 303: { description: 'To the issuer', headers: ['Location'] } },
  },
  oidcCallback: {
    method: 'GET',
    path: '/auth/oidc/callback',
    on: 'all',
    tag: 'login',
    summary: 'Where the issuer sends the browser back to: the redirect URI to register there',
    responses: {
      303: { description: 'Logged in, or back with the reason in login-fault', headers: ['Location'] },
    },
  },
} as const satisfies Record<string, Endpoint>;
