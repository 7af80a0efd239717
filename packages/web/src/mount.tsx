import './styles/base.css';
import './styles/widgets.css';
import './styles/directory.css';
import './styles/service.css';
import './styles/result.css';
import './styles/picture.css';
import './styles/narrow.css';
import './styles/login.css';
import { QueryCache, QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { TomaatError } from '@tomaat/core';
import type { ReactNode } from 'react';
import { createRoot } from 'react-dom/client';
import { Router } from 'wouter';
import { basePath } from './base.ts';
import { applyTheme } from './theme.ts';

/** Begins a page in the document that was loaded. */
export function mount(page: ReactNode): void {
  applyTheme();
  const queries: QueryClient = new QueryClient({
    // An ended session first shows in the response to another request.
    queryCache: new QueryCache({
      onError: (error) => {
        if (error instanceof TomaatError && error.code === 'UNAUTHORIZED')
          void queries.invalidateQueries({ queryKey: ['me'] });
      },
    }),
    // The client already retries what is safe to retry; data from a local server is cheap to request again.
    defaultOptions: { queries: { retry: false, staleTime: 10_000, refetchOnWindowFocus: false } },
  });
  createRoot(document.getElementById('page')!).render(
    <QueryClientProvider client={queries}>
      <Router base={basePath}>{page}</Router>
    </QueryClientProvider>,
  );
}
