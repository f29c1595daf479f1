import io.ably.lib.realtime.AblyRealtime;
import io.ably.lib.realtime.Channel;
import io.ably.lib.realtime.CompletionListener;
import io.ably.lib.realtime.ConnectionState;
import io.ably.lib.rest.AblyRest;
import io.ably.lib.rest.Auth;
import io.ably.lib.types.ClientOptions;
import io.ably.lib.types.ErrorInfo;
import io.ably.lib.types.Message;
import io.ably.lib.types.PaginatedResult;
import io.ably.lib.types.Param;
import io.ably.lib.types.PresenceMessage;
import io.ably.lib.util.Log;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The Java SDK against a gateway. Prints one line per case: `case {"feature": …, "ok": …, "error": …}`. */
public class Main {
    private static final String KEY = System.getenv("KEY");
    private static final boolean BINARY = "msgpack".equals(System.getenv("FORMAT"));
    private static final long PATIENCE_S = 10;
    private static int channels = 0;

    private interface Case {
        void play() throws Exception;
    }

    private static int port(int gateway) {
        return Integer.parseInt(System.getenv("PORTS").split(",")[gateway]);
    }

    private static String unique() {
        channels += 1;
        return "plain:java-" + BINARY + "-" + System.nanoTime() + "-" + channels;
    }

    private static ClientOptions options(String clientId, int port) throws Exception {
        ClientOptions options = new ClientOptions(KEY);
        options.clientId = clientId;
        options.restHost = options.realtimeHost = "127.0.0.1";
        options.port = port;
        options.tls = false;
        options.useBinaryProtocol = BINARY;
        // Over plain HTTP the SDK sends no key.
        options.useTokenAuth = true;
        options.logLevel = Log.NONE;
        options.disconnectedRetryTimeout = 200;
        return options;
    }

    private static void await(AblyRealtime client, ConnectionState wanted) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_S);
        while (client.connection.state != wanted) {
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("connection is " + client.connection.state + ", not " + wanted + ": " + client.connection.reason);
            }
            Thread.sleep(20);
        }
    }

    private static AblyRealtime connected(ClientOptions options) throws Exception {
        AblyRealtime client = new AblyRealtime(options);
        await(client, ConnectionState.connected);
        return client;
    }

    /** A listener whose result can be waited for. */
    private static class Answer extends CompletableFuture<Void> implements CompletionListener {
        @Override
        public void onSuccess() {
            complete(null);
        }

        @Override
        public void onError(ErrorInfo reason) {
            completeExceptionally(new IllegalStateException(reason.code + " " + reason.message));
        }

        void within() throws Exception {
            get(PATIENCE_S, TimeUnit.SECONDS);
        }
    }

    private static void publish(Channel channel, String data) throws Exception {
        Answer answer = new Answer();
        channel.publish("n", data, answer);
        answer.within();
    }

    private static BlockingQueue<String> heard(Channel channel) throws Exception {
        BlockingQueue<String> heard = new LinkedBlockingQueue<>();
        channel.subscribe(message -> heard.add(String.valueOf(message.data)));
        return heard;
    }

    private static BlockingQueue<String> attached(Channel channel) throws Exception {
        BlockingQueue<String> heard = heard(channel);
        Answer answer = new Answer();
        channel.attach(answer);
        answer.within();
        return heard;
    }

    private static String next(BlockingQueue<String> heard) throws Exception {
        String data = heard.poll(PATIENCE_S, TimeUnit.SECONDS);
        if (data == null) throw new IllegalStateException("nothing came");
        return data;
    }

    private static void equal(Object got, Object wanted) {
        if (!wanted.equals(got)) throw new IllegalStateException(got + " is not " + wanted);
    }

    /** A TCP proxy that can drop its connections. */
    private static class Network implements AutoCloseable {
        private final ServerSocket server = new ServerSocket(0);
        private final List<Socket> open = new ArrayList<>();

        Network(int port) throws IOException {
            Thread accepting = new Thread(() -> {
                while (!server.isClosed()) {
                    try {
                        Socket inner = server.accept();
                        Socket outer = new Socket("127.0.0.1", port);
                        synchronized (open) {
                            open.add(inner);
                            open.add(outer);
                        }
                        pipe(inner, outer);
                        pipe(outer, inner);
                    } catch (IOException closed) {
                        return;
                    }
                }
            });
            accepting.setDaemon(true);
            accepting.start();
        }

        private static void pipe(Socket from, Socket to) {
            Thread piping = new Thread(() -> {
                byte[] buffer = new byte[65536];
                try (from; to; InputStream in = from.getInputStream(); OutputStream out = to.getOutputStream()) {
                    for (int count; (count = in.read(buffer)) >= 0; ) out.write(buffer, 0, count);
                } catch (IOException cut) {
                    // Both ends are closed.
                }
            });
            piping.setDaemon(true);
            piping.start();
        }

        int port() {
            return server.getLocalPort();
        }

        void cut() throws IOException {
            synchronized (open) {
                for (Socket socket : open) socket.close();
                open.clear();
            }
        }

        @Override
        public void close() throws IOException {
            server.close();
        }
    }

    private static void connects() throws Exception {
        AblyRealtime client = connected(options("ann", port(0)));
        Answer pong = new Answer();
        client.connection.ping(pong);
        pong.within();
        client.close();
        await(client, ConnectionState.closed);
    }

    private static void wrongKey() throws Exception {
        ClientOptions options = options("ann", port(0));
        options.useTokenAuth = false;
        options.key = KEY.split(":")[0] + ":wrong";
        AblyRealtime client = new AblyRealtime(options);
        await(client, ConnectionState.failed);
        equal(client.connection.reason.code, 40101);
    }

    private static void publishes() throws Exception {
        try (AblyRealtime reader = connected(options("ann", port(0))); AblyRealtime writer = connected(options("bob", port(1)))) {
            String name = unique();
            BlockingQueue<String> heard = attached(reader.channels.get(name));
            Channel channel = writer.channels.get(name);
            List<Answer> answers = new ArrayList<>();
            for (int number = 0; number < 50; number++) {
                answers.add(new Answer());
                channel.publish("n", String.valueOf(number), answers.get(number));
            }
            for (int number = 0; number < 50; number++) {
                equal(next(heard), String.valueOf(number));
                answers.get(number).within();
            }
        }
    }

    private static void subscribeThenPublish() throws Exception {
        try (AblyRealtime client = connected(options("ann", port(0)))) {
            for (int round = 0; round < 20; round++) {
                Channel channel = client.channels.get(unique());
                BlockingQueue<String> heard = heard(channel);
                publish(channel, "mine");
                equal(next(heard), "mine");
            }
        }
    }

    private static void history() throws Exception {
        try (AblyRealtime client = connected(options("ann", port(0)))) {
            Channel channel = client.channels.get(unique());
            for (int number = 0; number < 7; number++) publish(channel, String.valueOf(number));
            StringBuilder got = new StringBuilder();
            PaginatedResult<Message> page = channel.history(new Param[] {new Param("limit", "3"), new Param("direction", "forwards")});
            while (page != null) {
                for (Message message : page.items()) got.append(message.data);
                page = page.hasNext() ? page.next() : null;
            }
            equal(got.toString(), "0123456");
        }
    }

    private static void presence() throws Exception {
        try (AblyRealtime watcher = connected(options("ann", port(0))); AblyRealtime member = connected(options("bob", port(1)))) {
            String name = unique();
            BlockingQueue<String> events = new LinkedBlockingQueue<>();
            Channel channel = watcher.channels.get(name);
            Answer subscribed = new Answer();
            channel.presence.subscribe(message -> events.add(message.action + " " + message.data), subscribed);
            subscribed.within();
            Channel theirs = member.channels.get(name);
            Answer entered = new Answer();
            theirs.presence.enter("here", entered);
            entered.within();
            equal(next(events), "enter here");
            PresenceMessage[] members = channel.presence.get(true);
            equal(members.length + members[0].clientId + members[0].data, "1bobhere");
            Answer updated = new Answer();
            theirs.presence.update("still here", updated);
            updated.within();
            equal(next(events), "update still here");
            Answer left = new Answer();
            theirs.presence.leave("gone", left);
            left.within();
            equal(next(events), "leave gone");
        }
    }

    private static void resumes() throws Exception {
        try (Network network = new Network(port(0));
                AblyRealtime client = connected(options("ann", network.port()));
                AblyRealtime writer = connected(options("bob", port(1)))) {
            String name = unique();
            BlockingQueue<String> heard = attached(client.channels.get(name));
            String id = client.connection.id;
            for (int round = 0; round < 3; round++) {
                network.cut();
                publish(writer.channels.get(name), String.valueOf(round));
                equal(next(heard), String.valueOf(round));
            }
            equal(client.connection.id, id);
        }
    }

    private static void tokens() throws Exception {
        Auth.TokenParams params = new Auth.TokenParams();
        params.clientId = "ann";
        params.capability = "{\"plain:*\":[\"subscribe\"]}";
        AblyRest issuer = new AblyRest(options("ann", port(0)));
        ClientOptions options = options("ann", port(0));
        options.key = null;
        options.token = issuer.auth.requestToken(params, null).token;
        try (AblyRealtime client = connected(options)) {
            Channel channel = client.channels.get(unique());
            attached(channel);
            try {
                publish(channel, "x");
            } catch (Exception refused) {
                if (refused.getMessage().contains("40160")) return;
                throw refused;
            }
            throw new IllegalStateException("published without the right");
        }
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + '"';
    }

    private static void play(String feature, Case one) {
        String error = "";
        try {
            one.play();
        } catch (Throwable failed) {
            error = String.valueOf(failed);
        }
        String fields = "\"feature\": " + quoted(feature) + ", \"ok\": " + error.isEmpty() + ", \"error\": " + quoted(error);
        System.out.println("case {" + fields + "}");
    }

    public static void main(String[] arguments) {
        play("connects and closes", Main::connects);
        play("a wrong key fails for good", Main::wrongKey);
        play("publishes arrive in order, on another gateway", Main::publishes);
        play("a publish right after subscribing comes back", Main::subscribeThenPublish);
        play("history in pages", Main::history);
        play("presence: enter, members, update, leave", Main::presence);
        play("a dropped connection is resumed and nothing is missed", Main::resumes);
        play("tokens: requested, and limited to their rights", Main::tokens);
        System.exit(0);
    }
}
