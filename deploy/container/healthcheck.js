// Ends with 0 if the server in this container answers, at the port of the variable TOMAAT_PORT (9000). It listens with HTTP on
// loopback and with HTTPS elsewhere; its certificate is not checked, because nothing is sent to it.
const http = require('node:http');
const https = require('node:https');

const port = Number(process.env.TOMAAT_PORT ?? 9000);
const answers = (protocol) =>
  new Promise((resolve) => {
    const to = { host: '127.0.0.1', port, path: '/health/live', timeout: 2000, rejectUnauthorized: false };
    const request = protocol.get(to, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => resolve(false));
  });

(async () => process.exit((await answers(http)) || (await answers(https)) ? 0 : 1))();
