// Submits Flink SQL's interval join of two Kafka topics into a third to a running cluster, and prints the job's id.
// Events are read in Flink's avro-confluent format, samples are written as plain Avro, one per record. Arguments: REST port,
// then bootstrap, registry, impressions, clicks, samples (topics), window (ms), parallelism, state backend, checkpoint
// interval (ms) and folder, delivery guarantee, and the jars that the cluster lacks, separated by commas.
import java.time.Duration;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

public class FlinkKafkaJoin {
    public static void main(String[] given) throws Exception {
        String bootstrap = given[1], registry = given[2], windowMs = given[6], guarantee = given[11];
        Configuration settings = new Configuration();
        settings.setString("parallelism.default", given[7]);
        settings.setString("state.backend.type", given[8]);
        settings.setString("execution.checkpointing.interval", given[9] + " ms");
        settings.setString("state.checkpoints.dir", given[10]);
        settings.setString("pipeline.object-reuse", "true");
        String[] jars = given[12].split(",");
        StreamTableEnvironment tables = StreamTableEnvironment.create(StreamExecutionEnvironment
                .createRemoteEnvironment("127.0.0.1", Integer.parseInt(given[0]), settings, jars));
        String shown = "id BIGINT, `user` STRING, item STRING, `position` BIGINT, price DOUBLE";
        tables.executeSql(source("impressions", shown, bootstrap, given[3], registry));
        tables.executeSql(source("clicks", "id BIGINT", bootstrap, given[4], registry));
        tables.executeSql(sink(shown, bootstrap, given[5], guarantee));
        System.out.println(tables.executeSql(join(windowMs)).getJobClient().get().getJobID());
    }

    private static String source(String name, String columns, String bootstrap, String topic, String registry) {
        return "CREATE TABLE " + name + " (`at` TIMESTAMP(3) NOT NULL, " + columns + ", "
                + "WATERMARK FOR `at` AS `at` - INTERVAL '1' SECOND) WITH ('connector' = 'kafka', 'topic' = '" + topic
                + "', 'properties.bootstrap.servers' = '" + bootstrap + "', 'scan.startup.mode' = 'earliest-offset', "
                + "'format' = 'avro-confluent', 'avro-confluent.url' = '" + registry + "')";
    }

    private static String sink(String columns, String bootstrap, String topic, String guarantee) {
        return "CREATE TABLE samples (" + columns + ", shown_at TIMESTAMP(3) NOT NULL, clicked_at TIMESTAMP(3), "
                + "label INT NOT NULL) WITH ('connector' = 'kafka', 'topic' = '" + topic
                + "', 'properties.bootstrap.servers' = '" + bootstrap + "', 'properties.transaction.timeout.ms' = '600000', "
                + "'properties.linger.ms' = '20', 'properties.batch.size' = '262144', "
                + "'sink.delivery-guarantee' = '" + guarantee + "', 'sink.transactional-id-prefix' = '" + topic
                + "', 'format' = 'avro')";
    }

    private static String join(String windowMs) {
        Duration span = Duration.ofMillis(Long.parseLong(windowMs));
        String window = String.format("INTERVAL '%d %02d:%02d:%02d' DAY TO SECOND",
                span.toDays(), span.toHoursPart(), span.toMinutesPart(), span.toSecondsPart());
        return "INSERT INTO samples SELECT i.id, i.`user`, i.item, i.`position`, i.price, "
                + "CAST(i.`at` AS TIMESTAMP(3)), CAST(c.`at` AS TIMESTAMP(3)), "
                + "CASE WHEN c.id IS NULL THEN 0 ELSE 1 END FROM impressions i LEFT JOIN clicks c "
                + "ON i.id = c.id AND c.`at` >= i.`at` AND c.`at` < i.`at` + " + window;
    }
}
