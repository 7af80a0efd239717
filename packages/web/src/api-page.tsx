import 'swagger-ui-dist/swagger-ui.css';
import './styles/api.css';
import { useEffect, useRef } from 'react';
import SwaggerUI from 'swagger-ui-dist/swagger-ui-es-bundle.js';
import { Link } from 'wouter';
import { needsKey } from './access-texts.ts';
import { baseUrl } from './base.ts';
import { useMe } from './login.tsx';
import { onDark } from './theme.ts';
import { useTitle } from './ui.tsx';

/** The API as a person reads it: the server's own OpenAPI document, with requests to try and a field for the key. */
export default function ApiPage() {
  const me = useMe();
  const place = useRef<HTMLDivElement>(null);
  useTitle('API');
  useEffect(() => {
    SwaggerUI({
      domNode: place.current!,
      url: `${baseUrl}/api/openapi.json`,
      // Nothing of the document goes to another host.
      validatorUrl: null,
      docExpansion: 'list',
      defaultModelsExpandDepth: 0,
      tryItOutEnabled: true,
      requestSnippetsEnabled: true,
      deepLinking: false,
    });
  }, []);
  useEffect(() => {
    const { classList } = document.documentElement;
    const stop = onDark((isDark) => classList.toggle('dark-mode', isDark));
    return () => {
      stop();
      // The style sheet of Swagger UI stays, and would keep other pages dark.
      classList.remove('dark-mode');
    };
  }, []);
  return (
    <>
      <section className="service-head">
        <h1>API</h1>
        <p className="lead">
          What programs can ask of {location.host}, from its own{' '}
          <a href={`${baseUrl}/api/openapi.json`}>OpenAPI document</a>. Requests that you try here are really
          sent.
        </p>
        {needsKey(me.data) && (
          <p className="fine">
            Most of them need an API key: choose Authorize, and enter yours. It stays in this page, and is
            forgotten when you leave it.
          </p>
        )}
        <p className="fine">
          The page of each <Link href="/">service</Link> shows its own requests as code.
        </p>
      </section>
      <div ref={place} className="panel api" />
    </>
  );
}
