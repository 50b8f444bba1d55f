#include "batch/model_input.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

namespace springtide {
namespace {

constexpr size_t kPrefetchDistance = 12;  // rows

void check_number(const char* name, size_t got, size_t wanted, const char* of) {
    if (got != wanted)
        throw std::invalid_argument(std::string(name) + ": got " + std::to_string(got) + ", wanted " +
                                    std::to_string(wanted) + ", one for each " + of);
}

Pooling pooling_of(const FieldKeys& field, FieldPooling pooling, size_t u, size_t dim) {
    return {field.inverse, field.offsets, u, dim, pooling, field.weights};
}

}  // namespace

ModelInput::ModelInput(std::vector<Table*> tables, std::vector<Field> fields, size_t dense_columns, size_t threads,
                       std::vector<RowRounding> roundings)
    : columns_(dense_columns), workers_(threads) {
    if (!roundings.empty()) check_number("roundings", roundings.size(), tables.size(), "table");
    roundings.resize(tables.size());
    for (size_t t = 0; t < tables.size(); ++t)
        tables_.push_back({tables[t], roundings[t], {}, {}, {}, {}, std::vector<float>(tables[t]->dim()), {}, {}});
    size_t start = 0;
    for (const Field& field : fields) {
        if (field.table >= tables.size())
            throw std::invalid_argument("table: got " + std::to_string(field.table) + ", wanted 0 to " +
                                        std::to_string(tables.size()) + " - 1");
        fields_.push_back({field.pooling, start, {}, {}, {}});
        table_of_field_.push_back(field.table);
        start += field.pooling.width(tables[field.table]->dim());
    }
    for (size_t f = 0; f < fields_.size(); ++f) tables_[table_of_field_[f]].fields.push_back(&fields_[f]);
    columns_ += start;
}

void ModelInput::check_batch(std::span<const TableKeys> tables, std::span<const FieldKeys> fields) const {
    check_number("batch", tables.size(), tables_.size(), "table");
    check_number("batch", fields.size(), fields_.size(), "field");
    for (const TableKeys& table : tables) check_number("counts", table.counts.size(), table.keys.size(), "key");
    for (size_t f = 0; f < fields.size(); ++f) {
        const size_t t = table_of_field_[f], u = tables[t].keys.size();
        check(pooling_of(fields[f], fields_[f].pooling, u, tables_[t].table->dim()), {columns_, fields_[f].start});
    }
}

void ModelInput::find(std::span<const TableKeys> tables, std::span<const FieldKeys> fields, size_t* missing) {
    check_batch(tables, fields);
    for (size_t f = 0; f < fields.size(); ++f) fields_[f].pending = fields[f];
    workers_.run(tables_.size(), [&](size_t t) {
        BatchRows& pending = tables_[t].pending;
        std::vector<uint32_t>& rows = pending.rows;
        pending.keys = tables[t];
        rows.resize(tables[t].keys.size());
        tables_[t].table->find(tables[t].keys, rows.data());
        missing[t] = static_cast<size_t>(std::count(rows.begin(), rows.end(), kNoRow));
    });
    has_pending_ = true;
}

void ModelInput::resident(size_t t, uint8_t* resident) const {
    for (const uint32_t row : tables_.at(t).pending.rows) *resident++ = row != kNoRow;
}

void ModelInput::admit(size_t t, std::span<const int64_t> places, uint32_t at_s) {
    BatchRows& pending = tables_.at(t).pending;
    std::vector<uint64_t> keys;
    keys.reserve(places.size());
    for (const int64_t place : places) {
        if (place < 0 || static_cast<size_t>(place) >= pending.rows.size())
            throw std::invalid_argument("places: got " + std::to_string(place) + ", wanted 0 to " +
                                        std::to_string(pending.rows.size()) + " - 1");
        keys.push_back(pending.keys.keys[static_cast<size_t>(place)]);
    }
    std::vector<uint32_t> rows(keys.size());
    tables_[t].table->admit_new(keys, rows.data(), at_s);
    for (size_t i = 0; i < rows.size(); ++i) pending.rows[static_cast<size_t>(places[i])] = rows[i];
}

std::vector<std::vector<int64_t>> ModelInput::admit_missing(std::span<const size_t> tables, uint32_t at_s) {
    std::vector<std::vector<int64_t>> places(tables.size());
    for (const size_t t : tables) tables_.at(t);
    workers_.run(tables.size(), [&](size_t i) {
        const std::vector<uint32_t>& rows = tables_[tables[i]].pending.rows;
        for (size_t place = 0; place < rows.size(); ++place)
            if (rows[place] == kNoRow) places[i].push_back(static_cast<int64_t>(place));
        admit(tables[i], places[i], at_s);
    });
    return places;
}

void ModelInput::activate_pending() {
    if (!has_pending_) return;
    for (TableState& table : tables_) std::swap(table.pending, table.active);
    for (FieldState& field : fields_) std::swap(field.pending, field.active);
    has_pending_ = false;
}

// The grid of an existing row, a function of the packed row; without a step if the row is not rounded.
RowGrid ModelInput::TableState::grid(uint32_t row) const {
    if (table->importance(row) >= rounding.below) return {};
    return grid_of(static_cast<const Table*>(table)->weights(row), table->dim(), rounding.rounding);
}

// The addresses of a batch's rows and, in one pass over their weights, the grids of those that are rounded.
void ModelInput::TableState::locate_rows(BatchRows& batch) const {
    const Table& rows = *table;
    const auto weights_of = [&](uint32_t row) { return row == kNoRow ? zeros.data() : rows.weights(row); };
    const std::vector<uint32_t>& numbers = batch.rows;
    if (!rounds()) {
        batch.weights.resize(numbers.size());
        std::transform(numbers.begin(), numbers.end(), batch.weights.begin(), weights_of);
        return;
    }
    batch.rounded.resize(numbers.size());
    for (size_t i = 0; i < numbers.size(); ++i) {
        if (i + kPrefetchDistance < numbers.size()) __builtin_prefetch(weights_of(numbers[i + kPrefetchDistance]));
        batch.rounded[i] = {weights_of(numbers[i]), numbers[i] == kNoRow ? RowGrid{} : grid(numbers[i])};
    }
}

void ModelInput::gather(float* out) {
    activate_pending();
    workers_.run(tables_.size(), [&](size_t t) {
        TableState& state = tables_[t];
        state.locate_rows(state.active);
        for (const FieldState* field : state.fields) {
            const Pooling pooling =
                pooling_of(field->active, field->pooling, state.active.rows.size(), state.table->dim());
            const Columns columns = {columns_, field->start};
            if (state.rounds()) pool(pooling, state.active.rounded.data(), out, columns);
            else pool(pooling, state.active.weights.data(), out, columns);
        }
    });
}

void ModelInput::TableState::learn(const BatchRows& batch, FieldKeys FieldState::*keys, const float* gradient,
                                   size_t columns, uint32_t at_s) {
    const size_t u = batch.rows.size(), dim = table->dim();
    gradients.assign(u * dim, 0.0f);
    squares.assign(u, 0.0f);
    for (const FieldState* field : fields) {
        const Pooling pooling = pooling_of(field->*keys, field->pooling, u, dim);
        const Columns of_field = {columns, field->start};
        if (rounds()) add_unpooled(pooling, batch.rounded.data(), gradient, of_field, gradients.data());
        else add_unpooled(pooling, batch.weights.data(), gradient, of_field, gradients.data());
        add_squares(pooling, gradient, of_field, squares.data());
    }
    const RowGradients summed{gradients.data(), squares.data(), batch.keys.counts.data()};
    table->update_rows(batch.rows, batch.keys.keys, summed, at_s, 1, batch.rounded);
}

void ModelInput::learn(const float* gradient, uint32_t at_s) {
    workers_.run(tables_.size(), [&](size_t t) {
        tables_[t].learn(tables_[t].active, &FieldState::active, gradient, columns_, at_s);
    });
}

void ModelInput::defer() {
    activate_pending();
    for (TableState& table : tables_) std::swap(table.active, table.deferred);
    for (FieldState& field : fields_) std::swap(field.active, field.deferred);
}

void ModelInput::learn_deferred(const float* gradient, uint32_t at_s) {
    workers_.run(tables_.size(), [&](size_t t) {
        TableState& table = tables_[t];
        table.locate_rows(table.deferred);
        table.learn(table.deferred, &FieldState::deferred, gradient, columns_, at_s);
    });
}

}  // namespace springtide
