"""How each block of the documentation is executed, or why it is not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """Blocks of a page (all of a language, or that with a text) and the test that executes them, or a reason.

    The page `*` stands for those that have no row of their own.
    """

    page: str
    language: str
    containing: str = ""
    test: str = ""
    reason: str = ""


OWN_AGENT = "test_an_agent_of_its_own_answers_where_none_is_bound_and_is_refused_elsewhere"
WOKEN_CHAT = "test_use_chat_is_answered_by_workers_once_its_wake_up_goes_to_the_gateway"
TAKEN_OVER = "test_conversations_are_taken_over_by_the_commands_of_the_page"
ACTIVITIES = "test_dur_13_the_activities_of_the_guide_survive_an_engine_that_repeats_them"

PLAN = (
    Row("README.md", "sh", "scripts/dev ", test="test_scripts_dev_is_ready_and_the_readme_in_python_runs"),
    Row("README.md", "python", "ClientTransport", test="test_scripts_dev_is_ready_and_the_readme_in_python_runs"),
    Row("README.md", "js", test="test_the_examples_in_javascript_connect"),
    Row("README.md", "sh", "curl", test="test_the_examples_with_curl_run"),
    Row("README.md", "python", "@worker.agent", test="test_the_agent_of_the_readme_answers"),
    Row("README.md", "toml", test="test_the_agent_of_the_readme_answers"),
    Row("README.md", "sh", "selfhost-transport worker", test="test_the_agent_of_the_readme_answers"),
    Row("README.md", "sh", "loadtest", test="test_the_load_test_of_the_readme_runs"),
    Row("CONTRIBUTING.md", "sh", "scripts/dev", reason="the same two commands as in the README"),
    Row("docs/getting-started.md", "sh", "scripts/dev", reason="the same command as in the README"),
    Row("docs/getting-started.md", "", "ready http", reason="what the command prints; the tests wait for that line"),
    Row("docs/getting-started.md", "sh", "inspect", test="test_the_commands_that_look_into_a_dev_run"),
    Row("docs/getting-started.md", "sh", "CLONE", reason="installs for a minute; tests/deploy/test_compose.py builds that wheel"),
    Row("docs/getting-started.md", "js", test="test_the_examples_in_javascript_connect"),
    Row("docs/getting-started.md", "sh", "scripts/test", reason="it runs these tests"),
    Row("docs/python-sdk.md", "python", test="test_the_guide_of_the_sdk_runs_and_prints_what_it_shows"),
    Row("docs/agents.md", "python", "worker = Worker()", test="test_the_agents_of_the_guide_answer"),
    Row("docs/agents.md", "python", "on_cancel", test="test_the_agents_of_the_guide_answer"),
    Row("docs/agents.md", "python", '@worker.agent("booker")', test="test_the_agents_of_the_guide_answer"),
    Row("docs/agents.md", "python", "AgentHost", test=ACTIVITIES),
    Row("docs/adapters.md", "python", "import openai\n", test="test_the_examples_of_the_adapters_talk_to_a_provider"),
    Row("docs/adapters.md", "python", "async with openai_chat", test="test_the_examples_of_the_adapters_talk_to_a_provider"),
    Row("docs/codecs.md", "python", "@worker.agent", test="test_the_agent_of_the_codecs_passes_on_the_models_events"),
    Row("docs/codecs.md", "python", "ClientTransport", test="test_the_client_of_the_codecs_reads_items"),
    Row("docs/authentication.md", "python", test="test_a_token_made_as_the_guide_says_is_accepted_and_can_be_revoked"),
    Row("docs/authentication.md", "console", test="test_a_token_made_as_the_guide_says_is_accepted_and_can_be_revoked"),
    Row("*", "toml", test="test_the_configurations_load"),
    Row("docs/embedding.md", "python", test="test_sdk_6_the_example_holds_a_conversation"),
    Row("docs/hydration.md", "python", test="test_turns_go_out_and_come_back_as_the_guide_says"),
    Row("docs/hydration.md", "console", test="test_turns_go_out_and_come_back_as_the_guide_says"),
    Row("docs/migrating.md", "js", "options", test=OWN_AGENT),
    Row("docs/migrating.md", "js", "createChatTransport", test=WOKEN_CHAT),
    Row("docs/migrating.md", "sh", "selfhost-transport gateway", test=WOKEN_CHAT),
    Row("docs/migrating.md", "sh", "selfhost-transport import", test=TAKEN_OVER),
    Row("docs/front-ends.md", "jsx", reason="part of a component; tests/js/uimessage.test.mjs makes the same calls with useChat"),
    Row("docs/front-ends.md", "python", test="test_the_example_of_the_guide_prints_an_answer"),
    Row("docs/front-ends.md", "js", reason="part of a page; tests/js/agui.test.mjs makes the same calls with the real clients"),
    Row("docs/operations.md", "yaml", reason="for a cluster with KEDA; the metric's name is checked in the tests of /metrics"),
    Row("docs/performance.md", "sh", reason="takes minutes, and measures the machine"),
    Row("docs/deployment.md", "sh", "docker compose", reason="needs Docker; tests/test_deploy.py checks the files"),
    Row("docs/deployment.md", "sh", "ACL SETUSER $(", test="test_the_user_of_the_guide_can_be_loaded"),
    Row("docs/deployment.md", "sh", "useradd", reason="changes the machine, as root"),
    Row("docs/deployment.md", "", "SELFHOST_TRANSPORT_REDIS", test="test_the_environment_of_the_guide_loads"),
    Row("docs/logs.md", "sh", "--log-format", reason="tests/test_logs.py starts both processes with this setting"),
    Row("docs/logs.md", "json", reason="an example of output; tests/test_logs.py compares its keys"),
    Row("docs/logs.md", "nginx", test="test_turns_stream_through_the_proxy_of_the_guide_and_no_log_has_the_key"),
    Row("docs/tracing.md", "text", reason="tests/observing/test_tracing.py compares its spans with those of a run"),
    Row("docs/tracing.md", "python", reason="tests/observing/traced_agent.py makes the same call"),
    Row("docs/deployment.md", "sh", "SETUSER backup", test="test_a_backup_is_restored_by_the_commands_of_the_guide"),
    Row("docs/deployment.md", "sh", "selfhost-transport migrate", test="test_to_a_cluster_and_back"),
    Row("docs/deployment.md", "sh", "rebalance", reason="tests/redis_io/elastic.py runs these commands on a Cluster under load"),
    Row("docs/deployment.md", "sh", "SHUTDOWN NOSAVE", test="test_a_backup_is_restored_by_the_commands_of_the_guide"),
    Row("docs/kubernetes.md", "sh", reason="needs a cluster; tests/deploy/test_chart.py renders the chart with these values"),
    Row("docs/kubernetes.md", "yaml", reason="of the Prometheus adapter; tests/deploy/test_chart.py checks the metric"),
    Row("docs/deployment.md", "sh", "--tls-cert", test="test_every_sdk_over_tls"),
    Row("docs/webhooks.md", "json", reason="tests/gateway/test_webhooks.py compares the members of an event"),
    Row("docs/webhooks.md", "python", reason="tests/gateway/test_webhooks.py verifies events in this way"),
    Row("docs/push.md", "js", reason="part of a page; tests/js/push.test.mjs makes the same calls in the chat page"),
    Row("docs/personal-data.md", "sh", reason="tests/commands/test_erase.py and test_erase_person.py run these commands"),
    Row("docs/operations.md", "sh", "--url", reason="tests/commands/test_through_a_gateway.py runs these commands"),
    Row("docs/load-testing.md", "sh", "loadtest --local", reason="tests/loadtest/test_own_agent.py runs it with such an agent"),
    Row("docs/load-testing.md", "sh", "fake-provider --port", reason="tests/fake_provider starts the command, with such options"),
    Row("docs/load-testing.md", "sh", "loadtest ramp", reason="takes minutes; tests/loadtest/test_knee.py has the search"),
    Row("docs/load-testing.md", "sh", "--compare", reason="tests/loadtest/test_own_agent.py compares two runs"),
    Row("docs/deployment.md", "nginx", test="test_turns_stream_through_the_proxy_of_the_guide_and_no_log_has_the_key"),
)  # fmt: skip
