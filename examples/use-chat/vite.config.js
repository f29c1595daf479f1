export default {
  define: { GATEWAY: JSON.stringify(process.env.GATEWAY ?? 'http://127.0.0.1:8080') },
  oxc: { jsx: { runtime: 'automatic' } },
};
