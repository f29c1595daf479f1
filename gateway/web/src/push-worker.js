// The page's service worker: shows what the gateway pushes, and opens the chat that it is about. It keeps nothing.

const TITLES = { completed: 'Your answer is ready', failed: 'An answer could not be finished' };

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('push', (event) => event.waitUntil(show(read(event))));
self.addEventListener('notificationclick', (event) => {
  event.notification.close();
  event.waitUntil(openChat(event.notification.data.session));
});

function read(event) {
  try {
    return event.data.json();
  } catch {
    return {};
  }
}

async function show(said) {
  const pages = await pagesOf(said.session);
  // Who looks at the chat sees the answer itself.
  if (pages.some((page) => page.visibilityState === 'visible')) return;
  const title = said.type === 'turn.suspended' ? 'An answer waits for your decision' : (TITLES[said.status] ?? TITLES.completed);
  await self.registration.showNotification(title, {
    body: said.session ?? '',
    // A repeat takes the place of the first.
    tag: said.turnId ?? 'answer',
    timestamp: said.time,
    data: { session: said.session ?? null },
  });
}

async function pagesOf(session) {
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true });
  return pages.filter((page) => page.url.startsWith(self.registration.scope) && new URL(page.url).searchParams.get('session') === session);
}

async function openChat(session) {
  const [page] = await pagesOf(session);
  if (page) return page.focus();
  const url = new URL(self.registration.scope);
  if (session) url.searchParams.set('session', session);
  return self.clients.openWindow(url.href);
}
